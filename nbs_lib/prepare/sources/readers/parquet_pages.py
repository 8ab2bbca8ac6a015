"""The headers of a parquet file's pages, which tell what the pages unpack to.

Source: https://github.com/apache/parquet-format, parquet.thrift, PageHeader; Thrift's compact
protocol.
"""

from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

DAMAGED = "table is truncated or damaged"
# Pages of a column in a row group: writers make them of about a mebibyte.
PAGES = 100_000
HEADER = 1 << 20  # bytes of a page's header, which may hold the page's least and greatest value
NESTED = 16  # structs in one another; a page's header has three
TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BYTES = range(1, 9)
STRUCT = 12
# Fields of a header: bytes of the page unpacked, and as it lies in the file.
UNPACKED, PACKED = 2, 3


class PageError(ValueError):
    """Pages that cannot be read: a short reason."""


class Page(NamedTuple):
    """The bytes of a page as it lies in the file, and unpacked."""

    packed: int
    unpacked: int


def pages_of(file: BinaryIO, chunk: Any) -> Iterator[Page]:
    """Yield the pages of a column in a row group.

    chunk: its ColumnChunkMetaData.
    Errors: PageError.
    """
    position = chunk.data_page_offset
    if chunk.has_dictionary_page and chunk.dictionary_page_offset:
        position = min(position, chunk.dictionary_page_offset)
    end = position + chunk.total_compressed_size
    for _ in range(PAGES):
        if position >= end:
            return
        length, fields = _read_header(file, position)
        page = Page(fields.get(PACKED, -1), fields.get(UNPACKED, -1))
        # A negative size would lead backwards, and the loop would never end.
        if min(page) < 0:
            raise PageError(DAMAGED)
        yield page
        position += length + page.packed
    raise PageError(f"column of a row group is made of more than {PAGES:,} pages")


def _read_header(file: BinaryIO, position: int) -> tuple[int, dict[int, int]]:
    """Return the length of a header, and its integers by field."""
    # Nearly all headers are short, and a large read for each would be slow.
    for size in (1 << 12, HEADER):
        try:
            file.seek(position)
            reader = _CompactReader(file.read(size))
            fields = reader.struct(NESTED)
            return reader.position, fields
        except IndexError:  # the header is longer
            continue
        except (OSError, ValueError, OverflowError):
            break
    raise PageError(DAMAGED)


class _CompactReader:
    """A reader of Thrift's compact protocol.

    Errors: IndexError at the end of the data, PageError for data of another format.
    """

    def __init__(self, data: bytes):
        self.data = data
        self.position = 0

    def struct(self, depth: int) -> dict[int, int]:
        """Return a struct's integers by field; other values are skipped."""
        if not depth:
            raise PageError(DAMAGED)
        fields = {}
        field = 0
        while head := self._byte():
            # The upper bits are the distance from the last field; 0 means that a number follows.
            field = field + (head >> 4) if head >> 4 else self._integer()
            kind = head & 15
            if kind in (I16, I32, I64):
                fields[field] = self._integer()
            elif kind not in (TRUE, FALSE):  # a boolean's kind is its value
                self._skip(kind, depth)
        return fields

    def _skip(self, kind: int, depth: int):
        if kind in (TRUE, FALSE, BYTE):
            self.position += 1
        elif kind in (I16, I32, I64):
            self._integer()
        elif kind == DOUBLE:
            self.position += 8
        elif kind == BYTES:
            length = self._varint()
            self.position += length
        elif kind == STRUCT:
            self.struct(depth - 1)
        else:  # headers of pages have no lists, sets or maps
            raise PageError(DAMAGED)

    def _integer(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)  # zigzag encoding

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 64, 7):
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise PageError(DAMAGED)

    def _byte(self) -> int:
        self.position += 1
        return self.data[self.position - 1]
