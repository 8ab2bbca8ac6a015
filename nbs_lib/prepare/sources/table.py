"""Tables of images and captions as sources: `.jsonl`, `.csv` and `.parquet`, read row by row.

A table names its images by path, relative to its folder, or, as parquet files of `datasets` do,
contains them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.compute

from ..captions import LONGEST, decode_caption
from ..enclosure import open_regular
from ..examples import (
    LARGEST_IN_MEMORY,
    InMemory,
    Item,
    Items,
    Skipped,
    SourceError,
    file_stamp,
    make_example,
)
from ..hashes.table import HashTable
from .base import Source, SourceOptions
from .folder import ImageFolder
from .readers.parquet import Parquet, TableError, binaries
from .table_rows import csv_columns, find_columns

ROWS_WITH_IMAGES = 16  # of a parquet file at once: images are large
Columns = pyarrow.RecordBatch | pyarrow.Table


def open_table(path: Path, options: SourceOptions) -> Source:
    """Return the source that a table is.

    Errors: SourceError if it cannot be read or lacks a column that is needed.
    """
    ending = path.suffix.lower()
    try:
        with open_regular(path) as file:
            # A .jsonl has no head: each of its lines has columns of its own.
            if ending == ".csv":
                find_columns(csv_columns(file), options)
            if ending == ".parquet":
                parquet = Parquet(file)
                image, text = find_columns(parquet.names, options)
                if pyarrow.types.is_struct(parquet.schema.field(image).type):
                    return TableWithImages(path, image, text)
    except OSError as failure:
        raise SourceError(
            f"source {str(path)!r}: the table cannot be read: {failure.strerror or failure}"
        ) from None
    except TableError as fault:
        raise SourceError(
            f"source {str(path)!r}: {fault}; image_column and caption_column say which they are"
        ) from None
    return TableOfNames(ImageFolder(path.parent, options), path)


@dataclass
class TableOfNames:
    """A table that names images of its folder."""

    folder: ImageFolder
    path: Path

    def total(self) -> int | None:
        # Other tables would have to be read to their end.
        return _count_rows(self.path) if self.path.suffix.lower() == ".parquet" else None

    def stamp(self) -> str:
        folder_stamp = self.folder.stamp()
        # The folder's stamp lacks hidden files, and the table may be one.
        return folder_stamp and f"{folder_stamp} {file_stamp(self.path)}"

    def __iter__(self) -> Items:
        try:
            with open_regular(self.path) as file:
                yield from self.folder.from_table(file, self.path.name, HashTable())
        except OSError:  # the table was readable when it was opened first
            yield Skipped(decode_caption(self.path.name), "table cannot be read")


@dataclass
class TableWithImages:
    """A parquet file that contains its images: a column of structs with their bytes."""

    path: Path
    image: str
    text: str

    def total(self) -> int | None:
        return _count_rows(self.path)

    def stamp(self) -> str:
        return file_stamp(self.path)

    def __iter__(self) -> Items:
        table = decode_caption(self.path.name)
        try:
            with open_regular(self.path) as file:
                yield from self._read(Parquet(file), table)
        except TableError as fault:
            yield Skipped(table, str(fault))
        except OSError:
            yield Skipped(table, "table cannot be read")

    def _read(self, parquet: Parquet, table: str) -> Items:
        # Taken once: a file that changes meanwhile is read again by the next run.
        version = file_stamp(self.path)
        # Only the bytes of the struct: its path is not used, and may be as large.
        columns = [f"{self.image}.bytes", self.text]
        for first, batch in parquet.batches(columns, ROWS_WITH_IMAGES):
            if isinstance(batch, TableError):
                yield Skipped(f"{table}, from row {first + 1}", str(batch))
                continue
            rows = images_and_texts(batch, self.image, self.text)
            for number, (data, text) in enumerate(rows, start=first):
                id = decode_caption(f"{self.path.stem}-{number:06d}")
                yield example_in_memory(id, data, text, str(self.path), version)


def images_and_texts(
    batch: Columns,
    image: str,
    text: str,
) -> Iterator[tuple[bytes | None, Any]]:
    """Yield for each row the bytes of its image, as `datasets` stores them, and its caption.

    Either is None if it is of another type.
    """
    texts = batch.column(text)
    captions = iter([None] * batch.num_rows)
    # A column of nulls alone has no type; its captions are empty.
    if texts.type == pyarrow.null() or _is_text(texts.type):
        captions = (value or b"" for value in binaries(texts, LONGEST))
    data = binaries(struct_field(batch, image, "bytes"), LARGEST_IN_MEMORY)
    return zip(data, captions, strict=True)


def struct_field(
    batch: Columns,
    column: str,
    field: str,
) -> pyarrow.Array | pyarrow.ChunkedArray:
    """Return a field of a column of structs; nulls if there is none."""
    values = batch.column(column) if column in batch.schema.names else None
    if values is None or not pyarrow.types.is_struct(values.type):
        return pyarrow.nulls(batch.num_rows)
    if values.type.get_field_index(field) < 0:
        return pyarrow.nulls(batch.num_rows)
    return pyarrow.compute.struct_field(values, field)


def _is_text(kind: pyarrow.DataType) -> bool:
    kind = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
    return pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)


def example_in_memory(
    id: str,
    data: bytes | None,
    text: Any,
    origin: str,
    version: str,
) -> Item:
    """Return the example of a row that contains its image.

    origin: name of the data set.
    version: its change marker.
    """
    # `binaries` gives None for a null and for any other type.
    if data is None:
        return Skipped(id, "row without an image")
    if len(data) > LARGEST_IN_MEMORY:
        return Skipped(id, f"image in a table is larger than {LARGEST_IN_MEMORY >> 20} MiB")
    return with_text(id, text, InMemory(f"{origin}\0{id}", data, version))


def with_text(id: str, text: Any, image: Any) -> Item:
    """Return the example of an image and a value that should be its caption."""
    if not isinstance(text, str | bytes):
        return Skipped(id, "caption is no text", image=image)
    return make_example(id, text, image)


def _count_rows(path: Path) -> int | None:
    """Return the rows that a parquet file claims to have; None if it cannot be read."""
    try:
        with open_regular(path) as file:
            return Parquet(file).rows
    except (OSError, TableError):
        return None
