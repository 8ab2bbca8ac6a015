"""Tables of images and captions: `.jsonl`, `.csv` and `.parquet`, read row by row.

A table names its images by path, relative to its own folder, or, as parquet files of `datasets` do, holds them itself.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.compute

from ..captions import LONGEST, CaptionError, clean_caption, decode_caption
from ..enclosure import open_regular
from ..examples import LARGEST_HELD, Example, InMemory, Skipped, change_stamp
from . import Source, SourceError, SourceOptions
from .readers.parquet import Parquet, TableError, binaries
from .table_rows import ENDINGS, columns_of, head_of_csv

__all__ = ["ENDINGS", "table"]
IMAGES = 16  # rows of a parquet file with images at once


def table(path: Path, how: SourceOptions) -> Source:
    """A table by itself as a source. Errors: SourceError where it lacks a column that is needed, or cannot be read."""
    from .folder import Folder

    holds = False
    try:
        with open_regular(path) as file:
            if path.suffix.lower() == ".parquet":
                parquet = Parquet(file)
                image, text = columns_of(parquet.names, how)
                holds = pyarrow.types.is_struct(parquet.schema.field(image).type)
            elif path.suffix.lower() == ".csv":
                columns_of(head_of_csv(file), how)
    except OSError as failure:
        raise SourceError(
            f"source {str(path)!r}: the table cannot be read: {failure.strerror or failure}"
        ) from None
    except TableError as fault:
        raise SourceError(
            f"source {str(path)!r}: {fault}; image_column and caption_column say which they are"
        ) from None
    return WithImages(path, image, text) if holds else NamedByTable(Folder(path.parent, how), path)


class NamedByTable:
    """The images that a table names, of the folder it lies in."""

    def __init__(self, folder: Any, path: Path):
        self.folder, self.path = folder, path

    def total(self) -> int | None:
        return _rows_of(self.path) if self.path.suffix.lower() == ".parquet" else None

    def stamp(self) -> str:
        of_folder = self.folder.stamp()
        return (
            of_folder and f"{of_folder} {change_stamp(self.path)}"
        )  # its own name may be a hidden one

    def __iter__(self) -> Iterator[Example | Skipped]:
        try:
            with open_regular(self.path) as file:
                yield from self.folder.from_table(file, self.path.name, set())
        except OSError:
            yield Skipped(decode_caption(self.path.name), "table cannot be read")


class WithImages:
    """A parquet file that holds its images: a column of structs with their bytes."""

    def __init__(self, path: Path, image: str, text: str):
        self.path, self.image, self.text = path, image, text

    def total(self) -> int | None:
        return _rows_of(self.path)

    def stamp(self) -> str:
        return change_stamp(self.path)

    def __iter__(self) -> Iterator[Example | Skipped]:
        origin, version, table = (
            str(self.path),
            change_stamp(self.path),
            decode_caption(self.path.name),
        )
        try:
            with open_regular(self.path) as file:
                for number, batch in Parquet(file).batches(
                    [f"{self.image}.bytes", self.text], IMAGES
                ):
                    if isinstance(batch, TableError):
                        yield Skipped(f"{table}, from row {number + 1}", str(batch))
                        continue
                    for row, (data, text) in enumerate(
                        images_and_texts(batch, self.image, self.text), start=number
                    ):
                        yield with_bytes(
                            decode_caption(f"{self.path.stem}-{row:06d}"),
                            data,
                            text,
                            origin,
                            version,
                        )
        except TableError as fault:
            yield Skipped(table, str(fault))
        except OSError:
            yield Skipped(table, "table cannot be read")


def images_and_texts(
    batch: pyarrow.RecordBatch | pyarrow.Table, image: str, text: str
) -> Iterator[tuple[bytes | None, Any]]:
    """Yield of each row the bytes of its image, as `datasets` has them, and its caption; None for what is none."""
    texts = batch.column(text)
    known = texts.type == pyarrow.null() or _is_text(texts.type)
    captions = (
        (value or b"" for value in binaries(texts, LONGEST)) if known else [None] * batch.num_rows
    )
    return zip(binaries(_bytes_of(batch, image), LARGEST_HELD), captions, strict=True)


def _bytes_of(
    batch: pyarrow.RecordBatch | pyarrow.Table, image: str
) -> pyarrow.Array | pyarrow.ChunkedArray:
    whole = batch.column(image) if image in batch.schema.names else None
    if (
        whole is None
        or not pyarrow.types.is_struct(whole.type)
        or whole.type.get_field_index("bytes") < 0
    ):
        return pyarrow.nulls(batch.num_rows)
    return pyarrow.compute.struct_field(whole, "bytes")


def _is_text(kind: pyarrow.DataType) -> bool:
    kind = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
    return pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)


def with_bytes(
    id: str, data: bytes | None, text: Any, origin: str, version: str
) -> Example | Skipped:
    """The example of a row that holds its image."""
    if data is None:
        return Skipped(id, "row without an image")
    if len(data) > LARGEST_HELD:
        return Skipped(id, f"image in a table is larger than {LARGEST_HELD >> 20} MiB")
    place = InMemory(f"{origin}\0{id}", data, version)
    if not isinstance(text, str | bytes):
        return Skipped(id, "caption is no text", place=place)
    try:
        return Example(id, clean_caption(text), place)
    except CaptionError as fault:
        return Skipped(id, str(fault), place=place)


def _rows_of(path: Path) -> int | None:
    """The rows that a parquet file says it has; None where it cannot be read."""
    try:
        with open_regular(path) as file:
            return Parquet(file).rows
    except (OSError, TableError):
        return None
