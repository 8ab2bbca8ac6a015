"""The headers of a parquet file's pages, which tell what they unpack to.

Source: https://github.com/apache/parquet-format, parquet.thrift, PageHeader; Thrift's compact protocol.
"""

from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

DAMAGED = "table is truncated or damaged"
PAGES = 100_000
"""Pages of a column in a row group: writers make them of about a mebibyte."""
HEADER = 1 << 20  # bytes of a page's header, which may hold the page's least and greatest value
NESTED = 16  # structs in one another; a page's header has three
TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY = range(1, 9)
STRUCT = 12
UNPACKED, PACKED = (
    2,
    3,
)  # fields of a header: bytes of the page unpacked, and as it lies in the file


class PageError(ValueError):
    """Pages that cannot be read: a short reason."""


class Page(NamedTuple):
    """The bytes of a page as it lies in the file, and unpacked."""

    packed: int
    unpacked: int


def pages_of(file: BinaryIO, chunk: Any) -> Iterator[Page]:
    """Yield the pages of a column in a row group. chunk: its ColumnChunkMetaData. Errors: PageError."""
    place = chunk.data_page_offset
    if chunk.has_dictionary_page and chunk.dictionary_page_offset:
        place = min(place, chunk.dictionary_page_offset)
    end = place + chunk.total_compressed_size
    for _ in range(PAGES):
        if place >= end:
            return
        length, numbers = _header(file, place)
        page = Page(numbers.get(PACKED, -1), numbers.get(UNPACKED, -1))
        if min(page) < 0:
            raise PageError(DAMAGED)
        yield page
        place += length + page.packed
    raise PageError(f"column of a row group is made of more than {PAGES:,} pages")


def _header(file: BinaryIO, place: int) -> tuple[int, dict[int, int]]:
    """The length of a header, and its whole numbers by field."""
    for size in (1 << 12, HEADER):
        try:
            file.seek(place)
            reader = _Compact(file.read(size))
            numbers = reader.struct(NESTED)
            return reader.place, numbers
        except IndexError:  # it is longer
            continue
        except (OSError, ValueError, OverflowError):
            break
    raise PageError(DAMAGED)


class _Compact:
    """A reader of Thrift's compact protocol. Errors: IndexError at the end of the data, PageError for what is none."""

    def __init__(self, data: bytes):
        self.data, self.place = data, 0

    def struct(self, depth: int) -> dict[int, int]:
        """Return a struct's whole numbers by field; the rest is passed over."""
        if not depth:
            raise PageError(DAMAGED)
        numbers, field = {}, 0
        while head := self._byte():
            field = field + (head >> 4) if head >> 4 else self._number()
            kind = head & 15
            if kind in (I16, I32, I64):
                numbers[field] = self._number()
            elif kind not in (TRUE, FALSE):  # which are the kind itself
                self._skip(kind, depth)
        return numbers

    def _skip(self, kind: int, depth: int):
        if kind in (TRUE, FALSE, BYTE):
            self.place += 1
        elif kind in (I16, I32, I64):
            self._number()
        elif kind == DOUBLE:
            self.place += 8
        elif kind == BINARY:
            length = self._varint()
            self.place += length
        elif kind == STRUCT:
            self.struct(depth - 1)
        else:  # headers of pages have no lists, sets or maps
            raise PageError(DAMAGED)

    def _number(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)

    def _varint(self) -> int:
        value = shift = 0
        while shift < 64:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
        raise PageError(DAMAGED)

    def _byte(self) -> int:
        self.place += 1
        return self.data[self.place - 1]
