"""What older caches of the same kind hold already: whole shards, and rows of shards."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

from ...cache.format import CAPTIONS, EXAMPLES, LATENTS, TEXTS, CacheError, read_cache_metadata
from ...files import file_hash
from ...run.progress_bar import write_above_bar
from ..hashes import hash64

MOST = 4
"""Older caches that are looked into, the newest ones."""
Place = tuple[Path, int]


class ReusableShards:
    """Shards by name and rows by content, of one space: whatever was encoded by the same code and weights.

    kind: latents or texts. What is damaged is said, once, and not used.
    """

    def __init__(self, store: Path, kind: str, space: str):
        self.kind = kind
        self.folders = _caches(store, kind, space)
        self.files: dict[
            str, tuple[Path, str]
        ] = {}  # of a shard its file, and the SHA-256 that it should have
        self.checked: dict[Path, bool] = {}
        for folder, meta in self.folders:
            listed = [
                (folder / name, digest)
                for name, digest in meta["files"].items()
                if name.startswith(f"{kind}/")
            ]
            self.files = {
                path.stem: (path, digest) for path, digest in listed
            } | self.files  # the newest one's stays
        self._rows: (
            list[tuple[np.ndarray, np.ndarray, np.ndarray, list[tuple[Path, str]]]] | None
        ) = None

    def shard(self, name: str) -> Path | None:
        """The file of a whole shard, checked; None where there is none."""
        path, digest = self.files.get(name, (None, ""))
        return path if path and self.whole(path, digest) else None

    def rows(self, keys: list[str]) -> dict[int, Place]:
        """Of the keys that are known, by their places in the list: the file and the row in it."""
        if self._rows is None:
            self._rows = [
                table for told in self.folders if (table := self._table(*told)) is not None
            ]
        found: dict[int, Place] = {}
        wanted = np.array([hash64(key.encode()) for key in keys], dtype=np.uint64)
        for hashes, shards, places, files in self._rows:
            at = np.searchsorted(hashes, wanted)
            for i, k in enumerate(at):
                if i in found or k >= len(hashes) or hashes[k] != wanted[i]:
                    continue
                path, digest = files[shards[k]]
                if self.whole(path, digest):
                    found[i] = path, int(places[k])
        return found

    def _table(self, folder: Path, meta: dict[str, Any]):
        """Hashes of keys in order, and of each its shard and row; and the shards' files. None where it is damaged."""
        name, key = (EXAMPLES, "key") if self.kind == LATENTS else (CAPTIONS, "caption")
        if (self.kind == LATENTS and not meta["images"]) or not self.whole(
            folder / name, meta["files"].get(name, "")
        ):
            return None
        listed = meta["shards" if self.kind == LATENTS else TEXTS]
        names = [f"{self.kind}/{each['name']}.safetensors" for each in listed]
        files = [(folder / name, meta["files"].get(name, "")) for name in names]
        return _in_order(
            pyarrow.parquet.read_table(folder / name, columns=[key, "shard", "row"]), key, files
        )

    def whole(self, path: Path, digest: str) -> bool:
        """Whether a file is, byte for byte, what was written; looked at once."""
        if path not in self.checked:
            self.checked[path] = path.is_file() and file_hash(path) == digest
            if not self.checked[path]:
                write_above_bar(f"cache: {path} is missing or damaged; it is built again")
        return self.checked[path]


def _caches(store: Path, kind: str, space: str) -> list[tuple[Path, dict[str, Any]]]:
    """The newest caches of a space."""
    found = []
    folders = (
        [each for each in store.iterdir() if each.is_dir() and not each.name.startswith(".")]
        if store.exists()
        else []
    )
    for folder in sorted(folders, key=lambda each: each.stat().st_mtime, reverse=True):
        try:
            meta = read_cache_metadata(folder)
        except CacheError:
            continue
        if meta.get("spaces", {}).get(kind) == space:
            found.append((folder, meta))
        if len(found) == MOST:
            break
    return found


def _in_order(table: pyarrow.Table, key: str, files: list[tuple[Path, str]]):
    hashes = np.array([hash64(each.encode()) for each in table[key].to_pylist()], dtype=np.uint64)
    order = np.argsort(hashes)
    return hashes[order], table["shard"].to_numpy()[order], table["row"].to_numpy()[order], files
