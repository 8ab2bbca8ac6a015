"""Tables of images and captions: `.jsonl`, `.csv` and `.parquet`, read row by row.

A table names its images by path, relative to its own folder, or, as parquet files of `datasets` do, holds them itself.
"""

import csv
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow
import pyarrow.compute

from ..captions import IMAGE_COLUMNS, LONGEST, TEXT_COLUMNS, CaptionError, clean, column, lines, valid_text
from ..enclosure import open_regular
from ..examples import LARGEST_HELD, Example, InMemory, Skipped, stamp_of
from . import Asked, Source, SourceError
from .parquet import DAMAGED, Parquet, TableError, binaries

ENDINGS = (".jsonl", ".csv", ".parquet")
ROWS, IMAGES = 256, 16  # rows of a parquet file at once, without images and with them
LINE = 1 << 22  # characters of a table's line
SHOWN = 20  # columns that an error names
csv.field_size_limit(LINE)
Text = str | bytes | CaptionError


def table(path: Path, how: Asked) -> Source:
    """A table by itself as a source. Errors: SourceError where it lacks a column that is needed, or cannot be read."""
    from .folder import Folder

    holds = False
    try:
        with open_regular(path) as file:
            if path.suffix.lower() == ".parquet":
                parquet = Parquet(file)
                image, text = _columns(parquet.names, how)
                holds = pyarrow.types.is_struct(parquet.schema.field(image).type)
            elif path.suffix.lower() == ".csv":
                _columns(_head(file), how)
    except OSError as failure:
        raise SourceError(f"source {str(path)!r}: the table cannot be read: {failure.strerror or failure}") from None
    except TableError as fault:
        raise SourceError(f"source {str(path)!r}: {fault}; image_column and caption_column say which they are") from None
    return WithImages(path, image, text) if holds else NamedByTable(Folder(path.parent, how), path)


class NamedByTable:
    """The images that a table names, of the folder it lies in."""

    def __init__(self, folder: Any, path: Path):
        self.folder, self.path = folder, path

    def total(self) -> int | None:
        return _rows_of(self.path) if self.path.suffix.lower() == ".parquet" else None

    def stamp(self) -> str:
        of_folder = self.folder.stamp()
        return of_folder and f"{of_folder} {stamp_of(self.path)}"  # its own name may be a hidden one

    def __iter__(self) -> Iterator[Example | Skipped]:
        try:
            with open_regular(self.path) as file:
                yield from self.folder.from_table(file, self.path.name, set())
        except OSError:
            yield Skipped(valid_text(self.path.name), "table cannot be read")


class WithImages:
    """A parquet file that holds its images: a column of structs with their bytes."""

    def __init__(self, path: Path, image: str, text: str):
        self.path, self.image, self.text = path, image, text

    def total(self) -> int | None:
        return _rows_of(self.path)

    def stamp(self) -> str:
        return stamp_of(self.path)

    def __iter__(self) -> Iterator[Example | Skipped]:
        origin, version, table = str(self.path), stamp_of(self.path), valid_text(self.path.name)
        try:
            with open_regular(self.path) as file:
                for number, batch in Parquet(file).batches([f"{self.image}.bytes", self.text], IMAGES):
                    if isinstance(batch, TableError):
                        yield Skipped(f"{table}, from row {number + 1}", str(batch))
                        continue
                    for row, (data, text) in enumerate(images_and_texts(batch, self.image, self.text), start=number):
                        yield with_bytes(valid_text(f"{self.path.stem}-{row:06d}"), data, text, origin, version)
        except TableError as fault:
            yield Skipped(table, str(fault))
        except OSError:
            yield Skipped(table, "table cannot be read")


def images_and_texts(batch: pyarrow.RecordBatch | pyarrow.Table, image: str, text: str) -> Iterator[tuple[bytes | None, Any]]:
    """Yield of each row the bytes of its image, as `datasets` has them, and its caption; None for what is none."""
    texts = batch.column(text)
    known = texts.type == pyarrow.null() or _is_text(texts.type)
    captions = (value or b"" for value in binaries(texts, LONGEST)) if known else [None] * batch.num_rows
    return zip(binaries(_bytes_of(batch, image), LARGEST_HELD), captions, strict=True)


def _bytes_of(batch: pyarrow.RecordBatch | pyarrow.Table, image: str) -> pyarrow.Array | pyarrow.ChunkedArray:
    whole = batch.column(image) if image in batch.schema.names else None
    if whole is None or not pyarrow.types.is_struct(whole.type) or whole.type.get_field_index("bytes") < 0:
        return pyarrow.nulls(batch.num_rows)
    return pyarrow.compute.struct_field(whole, "bytes")


def _is_text(kind: pyarrow.DataType) -> bool:
    kind = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
    return pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)


def with_bytes(id: str, data: bytes | None, text: Any, origin: str, version: str) -> Example | Skipped:
    """The example of a row that holds its image."""
    if data is None:
        return Skipped(id, "row without an image")
    if len(data) > LARGEST_HELD:
        return Skipped(id, f"image in a table is larger than {LARGEST_HELD >> 20} MiB")
    place = InMemory(f"{origin}\0{id}", data, version)
    if not isinstance(text, str | bytes):
        return Skipped(id, "caption is no text", place=place)
    try:
        return Example(id, clean(text), place)
    except CaptionError as fault:
        return Skipped(id, str(fault), place=place)


def named_images(file: BinaryIO, table: str, how: Asked) -> Iterator[tuple[str, str, Text]]:
    """Yield of each row where it is, the file that it names, and its text or what is wrong with it.

    table: name of the table, whose ending says what it is. Errors: TableError.
    """
    kind = os.path.splitext(table)[1].lower()
    table = valid_text(table)
    rows = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}[kind](file, table, how)
    lacks = CaptionError(f"lacks {how.image_column or 'file_name'} or {how.caption_column or 'text'}")
    try:
        for where, name, text in rows:
            if isinstance(text, CaptionError):
                yield where, "", text
            elif not isinstance(name, str | bytes) or not isinstance(text, str | bytes):
                yield where, "", lacks
            elif len(name) > LONGEST:
                yield where, "", CaptionError("name is longer than 1 MiB")
            else:
                yield where, os.fsdecode(name), text
    except OSError:
        raise TableError("table cannot be read") from None


def _jsonl(file: BinaryIO, table: str, how: Asked) -> Iterator[tuple[str, Any, Any]]:
    for number, line in enumerate(lines(file), start=1):
        if not line.strip():
            continue
        where = f"{table}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            yield where, None, CaptionError("is not JSON")
            continue
        row = row if isinstance(row, dict) else {}
        image, text = column(list(row), how.image_column, IMAGE_COLUMNS), column(list(row), how.caption_column, TEXT_COLUMNS)
        yield where, row.get(image), row.get(text)


def _csv(file: BinaryIO, table: str, how: Asked) -> Iterator[tuple[str, Any, Any]]:
    columns = _head(file)
    image, text = (columns.index(name) for name in _columns(columns, how))
    file.seek(0)
    rows = _csv_rows(file)
    next(rows, None)
    for number, row in enumerate(rows, start=1):
        where = f"{table}, row {number}"
        if isinstance(row, csv.Error):
            yield where, None, CaptionError("row is damaged, or longer than a caption may be")
        elif row:
            name, said = (row[i] if i < len(row) else None for i in (image, text))
            yield where, name, said and said.encode("utf-8", "surrogateescape")


def _csv_rows(file: BinaryIO) -> Iterator[list[str] | csv.Error]:
    """The rows, bytes that are not UTF-8 kept as halves of surrogate pairs."""
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    try:
        texts = iter(lambda: text.readline(LINE), "")  # a file of one line without an end would fill the memory
        rows = csv.reader(line.replace("\0", " ") for line in texts)
        while True:
            try:
                yield next(rows)
            except StopIteration:
                return
            except csv.Error as fault:
                yield fault
    finally:
        text.detach()  # or it would close the file


def _parquet(file: BinaryIO, table: str, how: Asked) -> Iterator[tuple[str, Any, Any]]:
    parquet = Parquet(file)
    image, text = _columns(parquet.names, how)
    for number, batch in parquet.batches([image, text], ROWS):
        if isinstance(batch, TableError):
            yield f"{table}, from row {number + 1}", None, CaptionError(str(batch))
            continue
        names, texts = (binaries(batch.column(name), LONGEST) for name in (image, text))
        for row, (name, said) in enumerate(zip(names, texts, strict=True), start=number + 1):
            yield f"{table}, row {row}", name, said


def _head(file: BinaryIO) -> list[str]:
    """The names of a CSV table's columns. Errors: TableError."""
    file.seek(0)
    found = next(_csv_rows(file), [])
    if isinstance(found, csv.Error):
        raise TableError(DAMAGED)
    return found


def _columns(known: list[str], how: Asked) -> tuple[str, str]:
    """The columns of images and of captions. Errors: TableError where one is missing or there twice."""
    found = column(known, how.image_column, IMAGE_COLUMNS), column(known, how.caption_column, TEXT_COLUMNS)
    for name, what in zip(found, ("images", "captions"), strict=True):
        if name is None:
            shown = valid_text(", ".join(each[:80] for each in known[:SHOWN])) + ("" if len(known) <= SHOWN else ", …")
            raise TableError(f"table lacks a column of {what}; it has {shown or 'none'}")
        if known.count(name) > 1:
            raise TableError(f"table has {known.count(name)} columns of the name {name}")
    return found


def _rows_of(path: Path) -> int | None:
    """The rows that a parquet file says it has; None where it cannot be read."""
    try:
        with open_regular(path) as file:
            return Parquet(file).rows
    except (OSError, TableError):
        return None
