"""Tables of images and captions: `.jsonl`, `.csv` and `.parquet`, read row by row.

A table names its images by path, relative to its own folder, or, as parquet files of `datasets` do, holds them itself.
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from ..captions import IMAGE_COLUMNS, TEXT_COLUMNS, CaptionError, clean, column, lines, valid_text
from ..examples import Example, InMemory, Skipped, stamp_of
from . import Asked, Source, SourceError

ENDINGS = (".jsonl", ".csv", ".parquet")
ROWS, IMAGES = 256, 16  # rows of a parquet file at once, without images and with them
LINE = 1 << 24  # characters of a table's line
csv.field_size_limit(LINE)


class TableError(ValueError):
    """A table that cannot be read: a short reason."""


def table(path: Path, how: Asked) -> Source:
    """A table by itself as a source. Errors: SourceError where it lacks a column that is needed."""
    from .folder import Folder

    try:
        image, text = _columns(path, how) if path.suffix.lower() != ".jsonl" else ("", "")
    except TableError as fault:
        raise SourceError(f"source {str(path)!r}: {fault}; image_column and caption_column say which they are") from None
    if path.suffix.lower() == ".parquet" and pyarrow.types.is_struct(pyarrow.parquet.read_schema(path).field(image).type):
        return WithImages(path, image, text)
    return NamedByTable(Folder(path.parent, how), path)


class NamedByTable:
    """The images that a table names, of the folder it lies in."""

    def __init__(self, folder: Any, path: Path):
        self.folder, self.path = folder, path

    def total(self) -> int | None:
        return pyarrow.parquet.read_metadata(self.path).num_rows if self.path.suffix.lower() == ".parquet" else None

    def stamp(self) -> str:
        of_folder = self.folder.stamp()
        return of_folder and f"{of_folder} {stamp_of(self.path)}"  # its own name may be a hidden one

    def __iter__(self) -> Iterator[Example | Skipped]:
        return self.folder._from_table(self.path, set())


class WithImages:
    """A parquet file that holds its images: a column of structs with their bytes."""

    def __init__(self, path: Path, image: str, text: str):
        self.path, self.image, self.text = path, image, text

    def total(self) -> int:
        return pyarrow.parquet.read_metadata(self.path).num_rows

    def stamp(self) -> str:
        return stamp_of(self.path)

    def __iter__(self) -> Iterator[Example | Skipped]:
        version = stamp_of(self.path)
        try:
            for number, row in enumerate(_parquet(self.path, [self.image, self.text], IMAGES)):
                yield with_bytes(f"{self.path.stem}-{number:06d}", row, self.image, self.text, str(self.path), version)
        except TableError as fault:
            yield Skipped(self.path.name, str(fault))


def with_bytes(id: str, row: dict[str, Any], image: str, text: str, origin: str, version: str) -> Example | Skipped:
    """The example of a row whose image is a struct of bytes and path, as `datasets` has it."""
    data = (row[image] or {}).get("bytes")
    if not isinstance(data, bytes):
        return Skipped(id, "row without an image")
    place = InMemory(f"{origin}\0{id}", data, version)
    if not isinstance(row[text], str | type(None)):
        return Skipped(id, "caption is no text", place=place)
    try:
        return Example(id, clean(row[text] or ""), place)
    except CaptionError as fault:
        return Skipped(id, str(fault), place=place)


def named_images(path: Path, how: Asked) -> Iterator[tuple[str, str, str | CaptionError]]:
    """Of each row: where it is, the file that it names, and its text or what is wrong with it. Errors: TableError."""
    for where, row in _rows(path, how):
        if isinstance(row, CaptionError):
            yield where, "", row
            continue
        image, text = column(list(row), how.image_column, IMAGE_COLUMNS), column(list(row), how.caption_column, TEXT_COLUMNS)
        name, said = row.get(image), row.get(text)
        if not isinstance(name, str) or not isinstance(said, str):
            yield where, "", CaptionError(f"lacks {how.image_column or 'file_name'} or {how.caption_column or 'text'}")
        else:
            yield where, name, said


def _rows(path: Path, how: Asked) -> Iterator[tuple[str, dict[str, Any] | CaptionError]]:
    """The rows of a table, each with what it is called."""
    kind = path.suffix.lower()
    if kind == ".jsonl":
        yield from _lines(path)
        return
    columns = list(_columns(path, how))
    rows = _parquet(path, columns) if kind == ".parquet" else _csv(path)
    for number, row in enumerate(rows, start=1):
        yield f"{path.name}, row {number}", row


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any] | CaptionError]]:
    with path.open("rb") as file:
        for number, line in enumerate(lines(file), start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = CaptionError("is not JSON")
            yield f"{path.name}, line {number}", row if isinstance(row, dict | CaptionError) else {}


def _csv(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            lines = iter(lambda: file.readline(LINE), "")  # a file of one line without an end would fill the memory
            for row in csv.DictReader(line.replace("\0", " ") for line in lines):
                yield {name: valid_text(value) if isinstance(value, str) else value for name, value in row.items()}
    except csv.Error as fault:
        raise TableError(f"table is damaged: {fault}") from None


def _parquet(path: Path, columns: list[str], rows: int = ROWS) -> Iterator[dict[str, Any]]:
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(rows, columns=columns):
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError):
        raise TableError("table is truncated or damaged") from None


def _columns(path: Path, how: Asked) -> tuple[str, str]:
    """The columns of images and of captions. Errors: TableError where one is missing."""
    try:
        if path.suffix.lower() == ".parquet":
            known = pyarrow.parquet.read_schema(path).names
        else:
            with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
                known = next(csv.reader([file.readline(LINE)]), [])
    except (pyarrow.ArrowException, OSError, csv.Error):
        raise TableError("table is truncated or damaged") from None
    found = column(known, how.image_column, IMAGE_COLUMNS), column(known, how.caption_column, TEXT_COLUMNS)
    for name, what in zip(found, ("images", "captions"), strict=True):
        if name is None:
            raise TableError(f"table lacks a column of {what}; it has {', '.join(known) or 'none'}")
    return found
