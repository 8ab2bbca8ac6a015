"""A cache in the store: found there, or built from what a source yields and older caches hold.

A build has a folder in the store, `.building-REQUEST`, in which shards appear whole. REQUEST is a
hash over the parameters. If a build is killed at any moment, the next run with these parameters
resumes it. A run that needs a cache which another process builds waits for it.

Several hosts build a cache in one such folder, each its share of the shards. Host 0 alone holds the
lock, keeps the index, and assembles the cache.
"""

import errno
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from ..cache.format import Cache, CacheError, open_cache
from ..config import Prepare
from ..files import erase, value_hash
from ..models import BaseError, StableDiffusion
from ..run.disk_space import free_space
from ..run.memory import MIB
from .assembly import Assembly
from .build_result import BuildResult
from .captioning.drafts import Drafts, open_drafts
from .encode.encoder import Cropping
from .encode.ingest import Ingest
from .encode.keys import image_info_code
from .encode.memory import checked_plan
from .encode.shard_writer import ShardWriter
from .encode.workers import WorkerPool, count_workers
from .hosts.share import Hosts
from .images import TRANSIENT_FAULTS
from .manifest import Manifest
from .preview import draw_previews
from .store.database import Database
from .store.image_index import ImageIndex
from .store.locks import lock_build
from .store.receipts import Receipt, Receipts, request_hash, sources_stamp

ALONE = Hosts()
FULL = (errno.ENOSPC, errno.EDQUOT)  # of the disk, and of the user's share of it


class FullError(RuntimeError):
    """A full disk: how much was written and how much more is needed."""


def build_or_reuse(
    store: Path,
    base: StableDiffusion,
    config: Prepare,
    run_folder: Path,
    hosts: Hosts = ALONE,
) -> BuildResult:
    """Return the cache of what the sources yield, in the folder `store`; called on host 0.

    run_folder: of the run's tables and pictures.
    Errors: SourceError, BaseError, WorkerError, FullError.
    """
    request = request_hash(config, base)
    part = _part(store, request)
    with lock_build(part, wait=True), closing(Database(store)) as database:
        drafts = open_drafts(config, database)
        stamp = sources_stamp(config)
        if stamp and drafts:
            stamp = value_hash([stamp, drafts.model])
        receipts = Receipts(store, database)
        receipt = receipts.find(request, stamp)
        cache = _open_if_intact(store / receipt.key) if receipt else None
        if hosts.share(lambda: cache is not None):
            receipts.copy_files(request, stamp, run_folder)
            return BuildResult(cache, True, 0, 0, receipt.more, receipt.dropped)
        result = _build(store, part, base, config, run_folder, database, hosts, drafts)
        # A transient fault may be gone the next time, so the pass has to be repeated then.
        if stamp and not result.dropped.keys() & TRANSIENT_FAULTS:
            receipt = Receipt(result.cache.meta["key"], result.dropped, result.more)
            receipts.write(request, stamp, receipt, run_folder)
        return result


def encode_share(store: Path, base: StableDiffusion, config: Prepare, hosts: Hosts):
    """Do a further host's part of `build_or_reuse`: encode the shards that it owns.

    Errors: SourceError, BaseError, WorkerError.
    """
    if hosts.share(lambda: None):
        # host 0 has found the cache
        return
    # This host may have less memory than host 0.
    checked_plan(config, base)
    part = _part(store, request_hash(config, base))
    # The tables are those of host 0, which alone are kept.
    tables = part / f"host-{hosts.rank}"
    manifest = Manifest(tables)
    cropping = Cropping.from_config(config, base)
    pool = WorkerPool(base, count_workers(config.num_processes), config.batch_size, hosts)
    writer = ShardWriter(config, base, cropping, store, part, tables, pool)
    try:
        Ingest(config, cropping, pool, None, manifest, writer).read_all()
        writer.finish()
    finally:
        # Workers that live on would write into the folder while it is being removed.
        pool.end()
        writer.discard()
        manifest.discard()
        erase(tables)


def _part(store: Path, request: str) -> Path:
    """Return the folder in which a cache is built."""
    return store / f".building-{request[:16]}"


def _build(
    store: Path,
    part: Path,
    base: StableDiffusion,
    config: Prepare,
    run_folder: Path,
    database: Database,
    hosts: Hosts,
    drafts: Drafts | None,
) -> BuildResult:
    plan = checked_plan(config, base, drafts and drafts.folder)
    cropping = Cropping.from_config(config, base)
    manifest = Manifest(run_folder)
    pool = WorkerPool(base, count_workers(config.num_processes), config.batch_size, hosts)
    writer = ShardWriter(config, base, cropping, store, part, part, pool)
    index = ImageIndex(database, image_info_code(cropping))
    ingest = Ingest(config, cropping, pool, index, manifest, writer, drafts)
    with _tidied(store, part, ingest):
        cache, reused = _encode_and_assemble(store, part, base, run_folder, ingest)
        peaks = [round(peak / MIB, 1) for peak in pool.ask_all("peak_memory")]
    return BuildResult(
        cache,
        reused=reused,
        encoded=writer.encoded,
        decoded=ingest.decoded,
        more=ingest.more,
        dropped=dict(manifest.dropped),
        memory={"planned_mib": plan and plan.as_mib(), "measured_mib": peaks},
    )


def _encode_and_assemble(
    store: Path, part: Path, base: StableDiffusion, run_folder: Path, ingest: Ingest
) -> tuple[Cache, bool]:
    """Return the cache of what the sources yield, and whether it existed."""
    manifest, writer = ingest.manifest, ingest.writer
    captions = writer.captions
    ingest.read_all()
    captions.flush()
    # The workers still encode while the pictures are drawn.
    draw_previews(run_folder, manifest, captions.tokens, captions.tokenizer.model_max_length)
    assembly = Assembly(
        base,
        ingest.config,
        ingest.cropping,
        part,
        writer,
        ingest.pool,
        manifest.examples_to_show,
    )
    # Drawn from the images before their folder can change, and while the workers encode.
    sheet = assembly.contact_sheet()
    writer.finish()
    manifest.close()
    key = assembly.key()
    # Changed sources may yield the same examples, for which a cache exists.
    existing = _open_if_intact(store / key)
    return existing or assembly.assemble(store / key, key, sheet), existing is not None


@contextmanager
def _tidied(store: Path, part: Path, ingest: Ingest) -> Iterator[None]:
    """End the workers after the context, and remove what nobody resumes.

    Errors: FullError in place of the system's own error of a full disk.
    """
    try:
        yield
    except BaseException as failure:
        # Workers that live on would write into the folder while it is being removed.
        ingest.pool.end()
        ingest.writer.discard()
        ingest.manifest.discard()
        # Shards of a broken base are of no use, and an empty folder resumes nothing.
        nothing_to_resume = not any(part.glob("*/*.safetensors"))
        if isinstance(failure, BaseError) or nothing_to_resume:
            shutil.rmtree(part, ignore_errors=True)
        if isinstance(failure, OSError) and failure.errno in FULL:
            message = explain_full_disk(store, part, ingest.manifest.n_kept, ingest.total)
            raise FullError(message) from None
        raise
    finally:
        ingest.pool.end()
    shutil.rmtree(part, ignore_errors=True)


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
