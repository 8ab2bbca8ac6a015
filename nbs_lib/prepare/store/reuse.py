"""Shards and rows of older caches that were encoded by the same code and weights."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet

from ...cache.format import (
    CAPTIONS,
    EXAMPLES,
    LATENTS,
    TEXTS,
    UNCONDITIONAL,
    CacheError,
    read_cache_metadata,
)
from ...files import file_hash
from ...run.progress_bar import write_above_bar
from ..hashes import hash64

MAX_CACHES = 4  # older caches that are searched, the newest ones
CacheEntry = tuple[Path, dict[str, Any]]  # a cache's folder, and its metadata
RowRef = tuple[Path, int]  # a shard's file, and a row in it


@dataclass(frozen=True)
class _RowTable:
    """The rows of a cache, sorted by the hashes of their keys.

    hashes: uint64 [n].
    shards, rows: int32 [n], a shard's number and a row in it.
    files: of the shards, each with its SHA-256.
    """

    hashes: np.ndarray
    shards: np.ndarray
    rows: np.ndarray
    files: list[tuple[Path, str]]

    def find(self, hashes: np.ndarray) -> Iterator[tuple[int, int]]:
        """Yield the index of each known hash, and its position in the table."""
        positions = np.searchsorted(self.hashes, hashes)
        for i, position in enumerate(positions):
            # The position of a hash beyond the largest one is behind the end.
            inside = position < len(self.hashes)
            if inside and self.hashes[position] == hashes[i]:
                yield i, position


class ReusableShards:
    """The shards, by name, and the rows, by key, of older caches of one kind and key space.

    kind: latents, texts or answers. A damaged file is reported once and not used.
    """

    def __init__(self, store: Path, kind: str, space: str):
        self.kind = kind
        self.caches = _newest_caches(store, kind, space)
        self.files: dict[str, tuple[Path, str]] = {}
        self._intact: dict[Path, bool] = {}
        self._tables: list[_RowTable] | None = None
        for folder, metadata in self.caches:
            for name, digest in metadata["files"].items():
                if name.startswith(f"{kind}/"):
                    path = folder / name
                    self.files.setdefault(path.stem, (path, digest))  # the newest cache's stays

    def find_shard(self, name: str) -> Path | None:
        """Return the file of a whole shard, checked, or None."""
        path, digest = self.files.get(name, (None, ""))
        return path if path and self._is_intact(path, digest) else None

    def find_rows(self, keys: list[str]) -> dict[int, RowRef]:
        """Map the index of each known key to its shard's file and the row in it."""
        if self._tables is None:
            # Read when first needed: a preparation that finds all shards whole needs no rows.
            tables = [self._row_table(*cache) for cache in self.caches]
            self._tables = [table for table in tables if table is not None]
        rows = {}
        hashes = _hashes(keys)
        for table in self._tables:
            for i, position in table.find(hashes):
                shard = table.shards[position]
                path, digest = table.files[shard]
                # A newer cache goes first. Its files are checked, as they may be damaged.
                if i not in rows and self._is_intact(path, digest):
                    rows[i] = path, int(table.rows[position])
        return rows

    def find_unconditional(self, space: str) -> Path | None:
        """Return the file of unconditional embeddings of a key space, checked, or None."""
        for folder, metadata in self.caches:
            path = folder / UNCONDITIONAL
            same = metadata["spaces"]["unconditional"] == space
            if same and self._is_intact(path, metadata["files"][UNCONDITIONAL]):
                return path
        return None

    def _row_table(self, folder: Path, metadata: dict[str, Any]) -> _RowTable | None:
        """Return the rows of a cache; None if its table is damaged, or it has no images."""
        of_latents = self.kind == LATENTS
        if of_latents and not metadata["images"]:
            return None
        name, key = (EXAMPLES, "key") if of_latents else (CAPTIONS, "caption")
        digests = metadata["files"]
        if not self._is_intact(folder / name, digests.get(name, "")):
            return None
        files = []
        for shard in metadata["shards" if of_latents else TEXTS]:
            file = f"{self.kind}/{shard['name']}.safetensors"
            files.append((folder / file, digests.get(file, "")))
        table = pyarrow.parquet.read_table(folder / name, columns=[key, "shard", "row"])
        hashes = _hashes(table[key].to_pylist())
        # Sorted arrays take 16 bytes for each row, a dict ten times as much.
        order = np.argsort(hashes)
        shards = table["shard"].to_numpy()
        rows = table["row"].to_numpy()
        return _RowTable(hashes[order], shards[order], rows[order], files)

    def _is_intact(self, path: Path, digest: str) -> bool:
        """Return whether a file is, byte for byte, what was written. Each file is read once."""
        if path not in self._intact:
            self._intact[path] = path.is_file() and file_hash(path) == digest
            if not self._intact[path]:
                write_above_bar(f"cache: {path} is missing or damaged; it is built again")
        return self._intact[path]


def _hashes(keys: list[str]) -> np.ndarray:
    return np.array([hash64(key.encode()) for key in keys], dtype=np.uint64)


def _newest_caches(store: Path, kind: str, space: str) -> list[CacheEntry]:
    """Return the newest caches of a key space, each with its metadata."""
    # What begins with a dot is being built, or is no cache.
    folders = [path for path in store.glob("[!.]*") if path.is_dir()]
    folders.sort(key=lambda folder: folder.stat().st_mtime, reverse=True)
    caches = []
    for folder in folders:
        # A damaged cache is passed over here, and built again by the run that needs it.
        try:
            metadata = read_cache_metadata(folder)
        except CacheError:
            continue
        if metadata["spaces"].get(kind) == space:
            caches.append((folder, metadata))
        if len(caches) == MAX_CACHES:
            break
    return caches
