"""64-bit hashes with a number each, for sources of millions: 24 to 48 bytes each, where Python's own dict takes 150; and names
by their number."""

from array import array
from hashlib import blake2b


def hash64(value: bytes) -> int:
    """64 bits of a hash."""
    return int.from_bytes(blake2b(value, digest_size=8).digest())


class Hashes:
    """Open addressing with linear probing; half of the places are free at least. Source: Knuth, TAOCP 3, sec. 6.4."""

    def __init__(self):
        self._places, self._numbers, self._taken = (
            array("Q", bytes(8 << 10)),
            array("I", bytes(4 << 10)),
            0,
        )

    def __contains__(self, value: int) -> bool:
        return bool(self._places[self._place(value)])

    def get(self, value: int) -> int | None:
        """The number of a hash, None where it was not added."""
        place = self._place(value)
        return self._numbers[place] if self._places[place] else None

    def __len__(self) -> int:
        return self._taken

    def add(self, value: int, number: int = 0):
        """Add a hash with its number, if it is not there. value: any whole number, of which 64 bits count; number: 32 bits."""
        place = self._place(value)
        if self._places[place]:
            return
        self._places[place], self._numbers[place], self._taken = (
            self._stored(value),
            number,
            self._taken + 1,
        )
        if 2 * self._taken > len(self._places):
            old, numbers = self._places, self._numbers
            self._places, self._taken = array("Q", bytes(2 * old.itemsize * len(old))), 0
            self._numbers = array("I", bytes(2 * numbers.itemsize * len(numbers)))
            for each, its in zip(old, numbers, strict=True):
                if each:
                    self.add(each, its)

    def _place(self, value: int) -> int:
        """Where a value is, or would be."""
        value, last = self._stored(value), len(self._places) - 1
        place = value & last
        while self._places[place] not in (0, value):
            place = (place + 1) & last
        return place

    @staticmethod
    def _stored(value: int) -> int:
        return (value & (1 << 64) - 1) or 1  # zero is a free place


class Names:
    """Texts by the number that they were added as: their own bytes and eight more each, where Python's strings take 50."""

    def __init__(self):
        self._bytes, self._ends = bytearray(), array("Q", [0])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, number: int) -> str:
        return self._bytes[self._ends[number] : self._ends[number + 1]].decode(
            "utf-8", "surrogatepass"
        )

    def add(self, name: str):
        self._bytes += name.encode("utf-8", "surrogatepass")
        self._ends.append(len(self._bytes))
