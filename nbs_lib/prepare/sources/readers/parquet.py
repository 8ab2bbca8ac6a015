"""Parquet files read in little memory, whatever they hold.

A file of a few kilobytes may unpack to gigabytes: a page of zeros, or one large value that many
rows share. So the headers of a row group's pages are read first; they bound what a row may take.
A row group that is damaged or too large affects itself alone.
"""

from collections.abc import Callable, Iterator
from typing import BinaryIO

import pyarrow
import pyarrow.compute
import pyarrow.parquet

from .parquet_pages import DAMAGED, Page, PageError, pages_of

# Arrow unpacks a page whole and copies its values, which takes three times its size.
PAGE = 1 << 26  # bytes of a page that is read, unpacked
# Images hardly get smaller when they are packed. A large page of them takes no surprising memory,
# because the file is as large.
LARGE_PAGE = 1 << 29  # bytes of such a page, unpacked
RATIO = 2  # by which such a page grows at most
BATCH = 1 << 26  # bytes of the rows that are read at once, unless a single one has more
CONTAINERS = 1 << 17  # elements of a list in a file's own description
STRINGS = 1 << 24  # bytes of a string in it
# Arrow's own errors, and Python's for names, types that Arrow does not know, and sizes that a
# damaged header claims.
UNREADABLE = (
    pyarrow.ArrowException,
    OSError,
    ValueError,
    KeyError,
    NotImplementedError,
    MemoryError,
)
BINARY = {
    pyarrow.string(): pyarrow.binary(),
    pyarrow.large_string(): pyarrow.large_binary(),
    pyarrow.binary(): pyarrow.binary(),
    pyarrow.large_binary(): pyarrow.large_binary(),
}


class TableError(ValueError):
    """A table, or a part of one, that cannot be read: a short reason."""


class Parquet:
    """An open parquet file. Errors: TableError.

    names: of its columns.
    rows: the number that it claims to have.
    """

    def __init__(self, file: BinaryIO):
        try:
            self._table = pyarrow.parquet.ParquetFile(
                file,
                # Without a buffer, a column's part of a row group is read whole at once.
                buffer_size=1 << 20,
                pre_buffer=False,
                thrift_container_size_limit=CONTAINERS,
                thrift_string_size_limit=STRINGS,
            )
            self.schema = self._table.schema_arrow
            self._metadata = self._table.metadata
            self.names = self.schema.names
            self.rows = max(0, self._metadata.num_rows)
            self.groups = self._metadata.num_row_groups
        except UNREADABLE:
            raise TableError(DAMAGED) from None
        self._file = file

    def batches(
        self,
        columns: list[str],
        rows: int,
        wants: Callable[[int], bool] = lambda group: True,
    ) -> Iterator[tuple[int, pyarrow.RecordBatch | TableError]]:
        """Yield batches in order, each with the number of its first row.

        A row group that cannot be read yields its fault.

        columns: names, or `name.part` for a part of a struct.
        rows: of a batch at most.
        wants: returns whether to read a row group.
        """
        next_group = 0
        for group in range(self.groups):
            first = next_group
            try:
                next_group += max(0, self._metadata.row_group(group).num_rows)
                if not wants(group):
                    continue
                row_bytes = max(1, self._row_bytes(group, columns))
                batch_rows = min(rows, BATCH // row_bytes or 1)
                batches = self._table.iter_batches(
                    batch_rows, row_groups=[group], columns=columns, use_threads=False
                )
                for batch in batches:
                    yield first, batch
                    first += batch.num_rows
            except UNREADABLE as fault:
                yield first, fault if isinstance(fault, TableError) else TableError(DAMAGED)

    def _row_bytes(self, group: int, columns: list[str]) -> int:
        """Return the bytes that a row takes at most. Errors: TableError if a page is too large."""
        metadata = self._metadata.row_group(group)
        total = 0
        for number in range(metadata.num_columns):
            chunk = metadata.column(number)
            # A column of structs or lists is stored as columns below its name.
            names = [name for name in columns if f"{chunk.path_in_schema}.".startswith(f"{name}.")]
            if not names:
                continue
            try:
                pages = list(pages_of(self._file, chunk))
            except PageError as fault:
                raise TableError(str(fault)) from None
            if any(map(_is_too_large, pages)):
                limit = f"{PAGE >> 20} MiB"
                raise TableError(f"row group holds a page that unpacks to more than {limit}")
            total += max((page.unpacked for page in pages), default=0)
        return total

    def bounds(self, group: int, column: str) -> tuple[int, int] | None:
        """Return the least and the greatest integer of a column in a row group, if known."""
        metadata = self._metadata.row_group(group)
        for number in range(metadata.num_columns):
            chunk = metadata.column(number)
            statistics = chunk.statistics if chunk.path_in_schema == column else None
            if statistics is None or not statistics.has_min_max:
                continue
            if isinstance(statistics.min, int) and isinstance(statistics.max, int):
                return statistics.min, statistics.max
        return None


def _is_too_large(page: Page) -> bool:
    grows_little = page.unpacked <= RATIO * page.packed
    return page.unpacked > (LARGE_PAGE if grows_little else PAGE)


def binaries(
    array: pyarrow.Array | pyarrow.ChunkedArray,
    longest: int,
) -> Iterator[bytes | None]:
    """Yield texts or bytes undecoded; None for values of other types.

    A text that is not UTF-8 then affects itself alone.
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
    # Offsets of a damaged file may point outside its data.
    array.validate(full=True)
    for value in array:
        yield value.as_buffer()[: longest + 1].to_pybytes() if value.is_valid else None
