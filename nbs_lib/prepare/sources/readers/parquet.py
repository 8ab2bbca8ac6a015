"""Parquet files read in little memory, whatever they hold: a row group that is damaged or too large costs itself alone.

A file of a few kilobytes may unpack to gigabytes: a page of zeros, or one large value that many rows share. So the headers of
a row group's pages are read first; they bound what a row may take.
"""

from collections.abc import Callable, Iterator
from typing import BinaryIO

import pyarrow
import pyarrow.compute
import pyarrow.parquet

from .parquet_pages import DAMAGED, PageError, pages_of

PAGE = 1 << 26
"""Bytes of a page that is read, unpacked. Arrow unpacks a page whole and copies its values: it takes three times as much."""
LARGE_PAGE, RATIO = 1 << 29, 2
"""Bytes of a page of images, which hardly get smaller when they are packed, and what it may at most grow by: the memory that
it takes is no surprise, for the file is as large."""
BATCH = 1 << 26  # bytes of the rows that are read at once, unless a single one has more
CONTAINERS, STRINGS = (
    1 << 17,
    1 << 24,
)  # elements of a list and bytes of a string in a file's own description
UNREADABLE = (
    pyarrow.ArrowException,
    OSError,
    ValueError,
    KeyError,
    NotImplementedError,
    MemoryError,
)
"""What Arrow raises for files that somebody else may have written: its own errors, and Python's for names, types that it does
not know, and sizes that a damaged header claims."""
BINARY = {
    pyarrow.string(): pyarrow.binary(),
    pyarrow.large_string(): pyarrow.large_binary(),
    pyarrow.binary(): pyarrow.binary(),
    pyarrow.large_binary(): pyarrow.large_binary(),
}


class TableError(ValueError):
    """A table, or a part of one, that cannot be read: a short reason."""


class Parquet:
    """An open parquet file. names: of its columns; rows: how many it says it has. Errors: TableError."""

    def __init__(self, file: BinaryIO):
        limits = {"thrift_container_size_limit": CONTAINERS, "thrift_string_size_limit": STRINGS}
        try:
            # a buffer: or else a column's whole part of a row group is read at once
            self._table = pyarrow.parquet.ParquetFile(
                file, buffer_size=1 << 20, pre_buffer=False, **limits
            )
            self.schema = self._table.schema_arrow
            self._metadata = self._table.metadata
            self.names, self.rows = self.schema.names, max(0, self._metadata.num_rows)
            self.groups = self._metadata.num_row_groups
        except UNREADABLE:
            raise TableError(DAMAGED) from None
        self._file = file

    def batches(
        self, columns: list[str], rows: int, wanted: Callable[[int], bool] = lambda group: True
    ) -> Iterator[tuple[int, pyarrow.RecordBatch | TableError]]:
        """Yield these columns in order, with the number of the first row; for a row group that cannot be read, why.

        columns: names, or `name.part` for a part of a struct; rows: at once, at most; wanted: which row groups are.
        """
        first = 0
        for group in range(self.groups):
            number = first
            try:
                first += max(0, self._metadata.row_group(group).num_rows)
                if not wanted(group):
                    continue
                for batch in self._read(
                    group, columns, min(rows, BATCH // max(1, self._largest(group, columns)) or 1)
                ):
                    yield number, batch
                    number += batch.num_rows
            except UNREADABLE as fault:
                yield number, fault if isinstance(fault, TableError) else TableError(DAMAGED)

    def _read(self, group: int, columns: list[str], rows: int) -> Iterator[pyarrow.RecordBatch]:
        return self._table.iter_batches(
            rows, row_groups=[group], columns=columns, use_threads=False
        )

    def _largest(self, group: int, columns: list[str]) -> int:
        """Return the bytes that a row takes at most. Errors: TableError where that is too much."""
        metadata = self._metadata.row_group(group)
        found = 0
        for number in range(metadata.num_columns):
            chunk = metadata.column(number)
            if not any(
                chunk.path_in_schema == name or chunk.path_in_schema.startswith(f"{name}.")
                for name in columns
            ):
                continue
            try:
                pages = list(pages_of(self._file, chunk))
            except PageError as fault:
                raise TableError(str(fault)) from None
            if any(
                page.unpacked > (LARGE_PAGE if page.unpacked <= RATIO * page.packed else PAGE)
                for page in pages
            ):
                raise TableError(
                    f"row group holds a page that unpacks to more than {PAGE >> 20} MiB"
                )
            found += max((page.unpacked for page in pages), default=0)
        return found

    def bounds(self, group: int, column: str) -> tuple[int, int] | None:
        """Return the least and the greatest whole number of a column in a row group, if the file says so."""
        metadata = self._metadata.row_group(group)
        for number in range(metadata.num_columns):
            if metadata.column(number).path_in_schema == column:
                found = metadata.column(number).statistics
                if (
                    found is not None
                    and found.has_min_max
                    and isinstance(found.min, int)
                    and isinstance(found.max, int)
                ):
                    return found.min, found.max
        return None


def binaries(array: pyarrow.Array | pyarrow.ChunkedArray, longest: int) -> Iterator[bytes | None]:
    """Yield texts or bytes undecoded, so that one that is not UTF-8 costs itself alone; None for values of other types.

    longest: bytes; a longer value is cut to one byte more.
    """
    if isinstance(array, pyarrow.ChunkedArray):
        for chunk in array.chunks:
            yield from binaries(chunk, longest)
        return
    if isinstance(array, pyarrow.DictionaryArray):
        array = array.dictionary_decode()
    if array.type not in BINARY:
        yield from [None] * len(array)
        return
    array = array.cast(BINARY[array.type])
    array.validate(full=True)
    for value in array:
        yield value.as_buffer()[: longest + 1].to_pybytes() if value.is_valid else None
