"""A cache in the store: found there, or built from what a source yields and from what older caches hold.

Where one is being built there is a folder beside it, `.building-REQUEST`, in which shards appear whole; REQUEST is a hash over
what was asked for. Killed at any moment, the next run that asks for the same goes on there. Who asks for what another process
is building waits for it.
"""

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow.parquet
from PIL import Image

from ..cache.format import (
    AS_TRAINED,
    CAPTIONS,
    EXAMPLES,
    LATENTS,
    META,
    SHEET,
    Cache,
    CacheError,
    open_cache,
)
from ..config import Prepare
from ..files import atomic_folder, file_hash, hardlink_or_copy, value_hash, write_atomic
from ..models import BaseError, StableDiffusion
from ..run.disk_space import free_space
from . import preview as look
from .encode.ingest import Ingest
from .encode.keys import looks_code, teacher_request
from .encode.shard_writer import ShardWriter
from .examples import Example
from .filters import ImageInfo
from .images import PASSING
from .manifest import Manifest
from .store.image_index import ImageIndex
from .store.receipts import read_receipt, request_of, reuse_receipt, stamp_of_sources, write_receipt

FULL = (errno.ENOSPC, errno.EDQUOT)
SIDE_BY_SIDE = 6
"""Examples whose pictures are shown as they were, cut, and given back by the VAE."""


class FullError(RuntimeError):
    """The disk is full: how much was written and how much more is needed."""


@dataclass(frozen=True)
class BuildResult:
    """The cache; whether it was there already; encoded: rows of latents that were encoded now; looked_at: images that were
    read, the others being unchanged; more: whether a source has more than was taken; dropped: how many for each reason."""

    cache: Cache
    reused: bool
    encoded: int
    looked_at: int
    more: bool
    dropped: dict[str, int]


def build_or_reuse(store: Path, base: StableDiffusion, config: Prepare, own: Path) -> BuildResult:
    """The cache of what a source yields, in the folder `store`.

    own: the run's folder for tables and pictures of what went by. Errors: SourceError, BaseError, WorkerError, FullError.
    """
    request = request_of(config, base)
    part = store / f".building-{request[:16]}"
    with _alone(part.with_name(f"{part.name}.lock")):
        stamp = stamp_of_sources(config)
        before = read_receipt(store, request, stamp)
        if before and (cache := _there(store / before["key"])):
            reuse_receipt(store, request, own)
            return BuildResult(cache, True, 0, 0, before["more"], before["dropped"])
        notes = Manifest(own)
        shelf = ShardWriter(config, base, store, part, notes)
        seen = ImageIndex(store, looks_code(shelf.sizes, shelf.crop))
        gather = Ingest(config, shelf, notes, seen)
        try:
            gather.all()
            shelf.flush_texts()
            look.draw_all(
                own, notes, base.tokenizer().model_max_length
            )  # while the processes are still at work
            sheet = _contact_sheet(shelf)
            shelf.finish()
            notes.close()
            key = _key(part, base, config, shelf)
            there = _there(store / key)
            cache = there or _assemble(store / key, key, part, base, config, shelf, sheet)
        except BaseException as failure:
            shelf.end()  # or its processes would go on writing where it is tidied up
            shelf.forget()
            notes.forget()
            if isinstance(failure, BaseError) or not any(part.glob("*/*.safetensors")):
                shutil.rmtree(part, ignore_errors=True)  # there is nothing to go on with
            if isinstance(failure, OSError) and failure.errno in FULL:
                raise FullError(_how_much(store, part, notes.kept, gather.total)) from None
            raise
        finally:
            shelf.end()
            seen.close()
        shutil.rmtree(part, ignore_errors=True)
        dropped = dict(notes.dropped)
        if (
            stamp and not dropped.keys() & PASSING
        ):  # what may be otherwise the next time is looked at again then
            write_receipt(
                store,
                request,
                own,
                {"stamp": stamp, "key": key, "dropped": dropped, "more": gather.more},
            )
    return BuildResult(
        cache, there is not None, shelf.encoded, gather.looked_at, gather.more, dropped
    )


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep others that ask for the same waiting. The lock goes with its process, however that ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with path.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print("another process is building this cache; waiting for it", flush=True)
                fcntl.flock(file, fcntl.LOCK_EX)
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                try:
                    yield
                finally:
                    path.unlink(missing_ok=True)
                return
            # who held it has removed it: there is another one, or none, by now


def _key(part: Path, base: StableDiffusion, config: Prepare, shelf: ShardWriter) -> str:
    """Hash over all that changes what a cache holds, 64 hex digits."""
    of_base = [base.name, config.revision, base.hash]
    told = [
        shelf.spaces,
        *of_base,
        config.resolution,
        config.negative_prompt,
        teacher_request(config),
        config.buckets,
    ]
    digest = sha256(value_hash(told).encode())
    for name in (EXAMPLES, CAPTIONS):
        with pyarrow.parquet.ParquetFile(part / name) as table:
            for rows in table.iter_batches(4096):
                digest.update(value_hash(rows.to_pydict()).encode())
    return digest.hexdigest()


def _there(folder: Path) -> Cache | None:
    if not folder.exists():
        return None
    try:
        return open_cache(folder)
    except CacheError as damage:
        print(f"{damage}; it is built again")
        return None


def _chosen(shelf: ShardWriter) -> list[tuple[Example, ImageInfo]]:
    """The examples that are shown, as far as they have images."""
    return [
        (example, seen) for example, seen in shelf.notes.examples.items if example.image is not None
    ]


def _contact_sheet(shelf: ShardWriter) -> Image.Image | None:
    chosen = _chosen(shelf)
    return (
        look.contact_sheet(shelf.pictures(chosen), [each.caption for each, _ in chosen])
        if chosen
        else None
    )


def _assemble(
    folder: Path,
    key: str,
    part: Path,
    base: StableDiffusion,
    config: Prepare,
    shelf: ShardWriter,
    sheet: Image.Image | None,
) -> Cache:
    """Link all shards into one folder, with the tables and pictures, and give it its name."""
    with atomic_folder(folder, replace=True) as place:
        for name, path in {
            **shelf.files,
            EXAMPLES: part / EXAMPLES,
            CAPTIONS: part / CAPTIONS,
        }.items():
            (place / name).parent.mkdir(exist_ok=True)
            hardlink_or_copy(path, place / name)
        if sheet:
            chosen = _chosen(shelf)
            sheet.save(place / SHEET)
            _as_trained(
                place / AS_TRAINED, chosen[:: -(-len(chosen) // SIDE_BY_SIDE)], place, shelf
            )
        meta = _meta(key, base, config, shelf, place)
        write_atomic(place / META, json.dumps(meta, indent=1, ensure_ascii=False) + "\n")
    return Cache(folder, meta)


def _meta(
    key: str, base: StableDiffusion, config: Prepare, shelf: ShardWriter, place: Path
) -> dict[str, Any]:
    shapes: dict[str, int] = {}
    for shard in shelf.shards:
        shape = " ".join(map(str, shard["shape"]))
        shapes[shape] = shapes.get(shape, 0) + shard["rows"]
    files = sorted(path for path in place.rglob("*") if path.is_file())
    return {
        "key": key,
        "base": base.name,
        "revision": config.revision,
        "base_hash": base.hash,
        "resolution": config.resolution,
        "examples": sum(shapes.values()),
        "captions": sum(each["rows"] for each in shelf.texts),
        "captions_cut": shelf.captions_cut,
        "text_shape": shelf.text_shape(),
        "shapes": shapes,
        "shards": shelf.shards,
        "texts": shelf.texts,
        "negative": config.negative_prompt,
        "answers": teacher_request(config),
        "images": any(name.startswith(f"{LATENTS}/") for name in shelf.files),
        "spaces": shelf.spaces,
        "files": {path.relative_to(place).as_posix(): file_hash(path) for path in files},
    }


def _as_trained(
    path: Path, chosen: list[tuple[Example, ImageInfo]], place: Path, shelf: ShardWriter
):
    """Pictures as they were, as they were cut, and as the VAE gives them back from the latents that are trained on."""
    decoded = shelf.decoded(chosen, place)
    rows = [
        (look.original(each), cut, back)
        for (each, _), cut, back in zip(chosen, shelf.pictures(chosen), decoded, strict=True)
    ]
    look.side_by_side(rows, ("as it was", "as it is cut", "as the VAE gives it back")).save(path)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:  # renamed meanwhile
        return 0


def _how_much(store: Path, part: Path, done: int, total: int | None) -> str:
    """What a full disk's sentence says."""
    if "inode" in (free := free_space(store)):
        return f"the disk of {store} takes no more files: {free}; remove files and run this stage again: it goes on"
    written = sum(map(_size, part.rglob("*"))) / 2**20
    more = "more is needed"
    if done and total:
        more = f"about {max(1.0, written / done * (total - done)):.0f} MiB more are needed for the rest"
    return (
        f"the disk of {store} is full: {written:.0f} MiB were written for {done} of "
        f"{total or 'an unknown number of'} examples; {more}; make room and run this stage again, it goes on where it was"
    )
