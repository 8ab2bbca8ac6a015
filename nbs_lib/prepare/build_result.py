"""The result of a build, as a stage and its record name it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..cache.format import Cache, read_cache_metadata


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

    def as_record(self) -> dict[str, Any]:
        """Return the result as the record of a stage names it."""
        return {
            "cache": self.cache.meta["key"],
            "reused": self.reused,
            "encoded": self.encoded,
            "looked_at": self.decoded,
            "more": self.more,
            "dropped": self.dropped,
            "memory": self.memory,
        }

    @classmethod
    def from_record(cls, store: Path, record: dict[str, Any]) -> "BuildResult":
        """Return the result of a record whose cache is in the store."""
        folder = store / record["cache"]
        cache = Cache(folder, read_cache_metadata(folder))
        names = ("reused", "encoded", "looked_at", "more", "dropped", "memory")
        return cls(cache, *(record[name] for name in names))
