"""The part of the work that is this host's, and what the hosts tell one another.

Every host reads the whole source and decides on every example, so all come to the same tables and
the same names of shards. Chunks and shards are decoded and encoded by one host each, their owner.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Hosts:
    """The hosts of a preparation, as one of them sees them; by default it is alone.

    rank: of this host. Host 0 keeps the index, the tables and the cache.
    count: of all hosts.
    """

    rank: int = 0
    count: int = 1

    def owns(self, number: int) -> bool:
        """Return whether a chunk or a shard of this number is this host's to encode."""
        return number % self.count == self.rank

    def queue(self, number: int) -> int:
        """Return the number of an owned chunk or shard among those of its owner."""
        return number // self.count

    def share(self, function: Callable[[], Any], number: int = 0) -> Any:
        """Return what a function returns on the host that owns a number. All hosts must call this.

        The function is called there alone. If it fails, the other hosts end with its host.
        """
        if self.count == 1:
            return function()
        # not at the top: one host alone needs no process group
        from accelerate.utils import broadcast_object_list

        values = [function() if self.owns(number) else None]
        broadcast_object_list(values, from_process=number % self.count)
        return values[0]

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all hosts, by their ranks. All hosts must call this."""
        return [self.share(lambda: value, rank) for rank in range(self.count)]
