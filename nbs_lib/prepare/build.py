"""A cache in the store: found there, or built from what a source yields and older caches hold.

A build has a folder in the store, `.building-REQUEST`, in which shards appear whole. REQUEST is a
hash over the parameters. If a build is killed at any moment, the next run with these parameters
resumes it. A run that needs a cache which another process builds waits for it.
"""

import errno
import shutil
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..cache.format import Cache, CacheError, open_cache
from ..config import Prepare
from ..models import BaseError, StableDiffusion
from ..run.disk_space import free_space
from ..run.memory import MIB
from .assembly import Assembly
from .encode.encoder import Cropping
from .encode.ingest import Ingest
from .encode.keys import image_info_code
from .encode.memory import checked_plan
from .encode.shard_writer import ShardWriter
from .encode.workers import WorkerPool, count_workers
from .images import TRANSIENT_FAULTS
from .manifest import Manifest
from .preview import draw_previews
from .store.database import Database
from .store.image_index import ImageIndex
from .store.locks import lock_build
from .store.receipts import Receipt, Receipts, request_hash, sources_stamp

FULL = (errno.ENOSPC, errno.EDQUOT)  # of the disk, and of the user's share of it


class FullError(RuntimeError):
    """A full disk: how much was written and how much more is needed."""


@dataclass(frozen=True)
class BuildResult:
    """A cache and how it was obtained.

    reused: whether the cache existed.
    encoded: rows of latents that were encoded.
    decoded: images that were read; the others had not changed.
    more: whether a source has more examples than were taken.
    dropped: items for each reason.
    memory: MiB of a process, planned by part and measured of each; None if nothing was built.
    """

    cache: Cache
    reused: bool
    encoded: int
    decoded: int
    more: bool
    dropped: dict[str, int]
    memory: dict[str, Any] | None = None


def build_or_reuse(
    store: Path,
    base: StableDiffusion,
    config: Prepare,
    run_folder: Path,
) -> BuildResult:
    """Return the cache of what the sources yield, in the folder `store`.

    run_folder: of the run's tables and pictures.
    Errors: SourceError, BaseError, WorkerError, FullError.
    """
    request = request_hash(config, base)
    part = store / f".building-{request[:16]}"
    with lock_build(part, wait=True), closing(Database(store)) as database:
        stamp = sources_stamp(config)
        receipts = Receipts(store, database)
        receipt = receipts.find(request, stamp)
        cache = _open_if_intact(store / receipt.key) if receipt else None
        if receipt and cache:
            receipts.copy_files(request, stamp, run_folder)
            return BuildResult(cache, True, 0, 0, receipt.more, receipt.dropped)
        result = _build(store, part, base, config, run_folder, database)
        # A transient fault may be gone the next time, so the pass has to be repeated then.
        if stamp and not result.dropped.keys() & TRANSIENT_FAULTS:
            receipt = Receipt(result.cache.meta["key"], result.dropped, result.more)
            receipts.write(request, stamp, receipt, run_folder)
        return result


def _build(
    store: Path,
    part: Path,
    base: StableDiffusion,
    config: Prepare,
    run_folder: Path,
    database: Database,
) -> BuildResult:
    plan = checked_plan(config, base)
    cropping = Cropping.from_config(config, base)
    manifest = Manifest(run_folder)
    pool = WorkerPool(base, count_workers(config.num_processes), config.batch_size)
    writer = ShardWriter(config, base, cropping, store, part, pool)
    index = ImageIndex(database, image_info_code(cropping))
    ingest = Ingest(config, cropping, pool, index, manifest, writer)
    try:
        ingest.read_all()
        writer.captions.flush()
        # The workers still encode while the pictures are drawn.
        captions = writer.captions
        draw_previews(run_folder, manifest, captions.tokens, captions.tokenizer.model_max_length)
        shown = manifest.examples_to_show
        assembly = Assembly(base, config, cropping, part, writer, pool, shown)
        # Drawn from the images before their folder can change, and while the workers encode.
        sheet = assembly.contact_sheet()
        writer.finish()
        manifest.close()
        key = assembly.key()
        # Changed sources may yield the same examples, for which a cache exists.
        existing = _open_if_intact(store / key)
        cache = existing or assembly.assemble(store / key, key, sheet)
        peaks = [round(peak / MIB, 1) for peak in pool.ask_all("peak_memory")]
    except BaseException as failure:
        # Workers that live on would write into the folder while it is being removed.
        pool.end()
        writer.discard()
        manifest.discard()
        # Shards of a broken base are of no use, and an empty folder resumes nothing.
        nothing_to_resume = not any(part.glob("*/*.safetensors"))
        if isinstance(failure, BaseError) or nothing_to_resume:
            shutil.rmtree(part, ignore_errors=True)
        if isinstance(failure, OSError) and failure.errno in FULL:
            message = explain_full_disk(store, part, manifest.n_kept, ingest.total)
            raise FullError(message) from None
        raise
    finally:
        pool.end()
    shutil.rmtree(part, ignore_errors=True)
    return BuildResult(
        cache,
        reused=existing is not None,
        encoded=writer.encoded,
        decoded=ingest.decoded,
        more=ingest.more,
        dropped=dict(manifest.dropped),
        memory={"planned_mib": plan and plan.as_mib(), "measured_mib": peaks},
    )


def _open_if_intact(folder: Path) -> Cache | None:
    if not folder.exists():
        return None
    try:
        return open_cache(folder)
    except CacheError as damage:
        print(f"{damage}; it is built again")
        return None


def explain_full_disk(store: Path, part: Path, finished: int, total: int | None) -> str:
    """Return what was written to a full disk, and about how much more is needed.

    part: the folder of the build.
    finished: examples that were kept so far.
    total: examples that are expected at most, or None.
    """
    # A disk may be full of files while bytes are free: then no amount of MiB helps.
    free = free_space(store)
    if "inode" in free:
        return (
            f"the disk of {store} takes no more files: {free}; "
            "remove files and run this stage again: it goes on"
        )
    n_bytes = sum(map(_size, part.rglob("*")))
    written = n_bytes / 2**20
    more = "more is needed"
    if finished and total:
        missing = max(1.0, written / finished * (total - finished))
        more = f"about {missing:.0f} MiB more are needed for the rest"
    return (
        f"the disk of {store} is full: {written:.0f} MiB were written for {finished} of "
        f"{total or 'an unknown number of'} examples; {more}; "
        "make room and run this stage again, it goes on where it was"
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:  # another process renamed it meanwhile
        return 0
