"""The files of a cache under construction, each found or to be written.

A shard is named by a hash over its content. So one that exists needs no work: after a kill, after a
change elsewhere, or if another cache has it.
"""

from pathlib import Path

from ...cache.format import ANSWERS, LATENTS, TEXTS, UNCONDITIONAL
from ..hosts.share import Hosts
from ..store.reuse import ReusableShards, RowRef
from .shard_rows import is_stored


class ShardFiles:
    """The files of a cache under construction.

    part: the folder to write in, with the files of an earlier try.
    paths: where each file is now, by its path in the cache. A file of another host is where that
        host would write it, until `exchange`.
    """

    def __init__(self, store: Path, part: Path, spaces: dict[str, str], hosts: Hosts):
        self.store = store
        self.part = part
        self.hosts = hosts
        self.spaces = spaces
        self.paths: dict[str, Path] = {}
        self._host_files: dict[str, str] = {}
        self._reusable: dict[str, ReusableShards] = {}
        for kind in (LATENTS, TEXTS, ANSWERS):
            self._reusable[kind] = ReusableShards(store, kind, spaces[kind])

    def claim(self, kind: str, name: str, number: int) -> Path | None:
        """Return where to write a shard; None if it exists, or another job or host writes it.

        number: of the chunk or shard; its owner writes it.
        """
        path = self.part / kind / f"{name}.safetensors"
        key = f"{kind}/{path.name}"
        # Two chunks with the same content are one shard.
        if key in self.paths:
            return None
        if not self.hosts.owns(number):
            self.paths[key] = path
            return None
        existing = path
        if not is_stored(path):
            existing = self._reusable[kind].find_shard(name)
        return self._claim(key, path, existing)

    def claim_unconditional(self) -> Path | None:
        """Return where host 0 writes the unconditional embeddings; None if they exist."""
        if self.hosts.rank:
            return None
        space = self.spaces["unconditional"]
        path = self.part / f"unconditional-{space[:32]}.safetensors"
        existing = path
        if not is_stored(path):
            # Caches with the same texts may have another negative prompt.
            existing = self._reusable[TEXTS].find_unconditional(space)
        return self._claim(UNCONDITIONAL, path, existing)

    def _claim(self, key: str, path: Path, existing: Path | None) -> Path | None:
        self.paths[key] = existing or path
        self._host_files[key] = self.paths[key].relative_to(self.store).as_posix()
        return None if existing else path

    def exchange(self):
        """Tell the other hosts where this host's files are, when all are written. All must call."""
        for files in self.hosts.gather(self._host_files):
            # A host may have mounted the store elsewhere.
            self.paths |= {key: self.store / path for key, path in files.items()}

    def path(self, kind: str, name: str) -> Path | None:
        """Return a shard's file; None if the cache has no such shard."""
        # Shards of prompts have no latents.
        return self.paths.get(f"{kind}/{name}.safetensors")

    def reusable_rows(self, kind: str, keys: list[str]) -> dict[int, RowRef]:
        """Map the index of each key that an older cache holds to its file and row."""
        return self._reusable[kind].find_rows(keys)
