"""A set of 64-bit hashes, for sources of millions: 16 to 32 bytes each, where Python's own set takes 90."""

from array import array


class Hashes:
    """Open addressing with linear probing; half of the places are free at least. Source: Knuth, TAOCP 3, sec. 6.4."""

    def __init__(self):
        self._places, self._taken = array("Q", bytes(8 << 10)), 0

    def __contains__(self, value: int) -> bool:
        return bool(self._places[self._place(value)])

    def __len__(self) -> int:
        return self._taken

    def add(self, value: int):
        """value: any whole number, of which 64 bits count."""
        place = self._place(value)
        if self._places[place]:
            return
        self._places[place], self._taken = self._stored(value), self._taken + 1
        if 2 * self._taken > len(self._places):
            old = self._places
            self._places, self._taken = array("Q", bytes(2 * old.itemsize * len(old))), 0
            for each in filter(None, old):
                self.add(each)

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
