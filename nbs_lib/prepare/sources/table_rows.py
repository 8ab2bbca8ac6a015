"""The rows of tables of images and captions: `.jsonl`, `.csv` and `.parquet`.

A row that cannot be used is yielded with its fault.
"""

import csv
import io
import json
import os
from collections.abc import Iterator
from typing import Any, BinaryIO, TextIO

from ..captions import (
    IMAGE_COLUMNS,
    LONGEST,
    TEXT_COLUMNS,
    CaptionError,
    decode_caption,
    find_column,
    read_lines,
)
from .base import SourceOptions
from .readers.parquet import DAMAGED, Parquet, TableError, binaries

TABLE_ENDINGS = (".jsonl", ".csv", ".parquet")
TEXT_ROWS_AT_ONCE = 256  # of a parquet file at once
MAX_LINE = 1 << 22  # characters of a row of a CSV table
NAMED_COLUMNS = 20  # columns that an error names
csv.field_size_limit(MAX_LINE)
Text = str | bytes | CaptionError
# TextRows as (a row's id, the name of its image, its text), unchecked.
TextRows = Iterator[tuple[str, Any, Any]]


def named_images(
    file: BinaryIO,
    table: str,
    options: SourceOptions,
) -> Iterator[tuple[str, str, Text]]:
    """Yield for each row its id, the image's name, and its text or fault.

    table: name of the table, whose ending tells its format.
    Errors: TableError.
    """
    ending = os.path.splitext(table)[1].lower()
    read = {".jsonl": _read_jsonl, ".csv": _read_csv, ".parquet": _read_parquet}[ending]
    image_column = options.image_column or "file_name"
    caption_column = options.caption_column or "text"
    lacks = CaptionError(f"lacks {image_column} or {caption_column}")
    # Faults of a row are yielded, so that it affects itself alone.
    try:
        for row, name, text in read(file, decode_caption(table), options):
            if isinstance(text, CaptionError):
                yield row, "", text
            elif not _is_text(name) or not _is_text(text):
                yield row, "", lacks
            elif len(name) > LONGEST:
                yield row, "", CaptionError("name is longer than 1 MiB")
            else:
                yield row, os.fsdecode(name), text
    except OSError:
        raise TableError("table cannot be read") from None


def _is_text(value: Any) -> bool:
    return isinstance(value, str | bytes)


def _read_jsonl(file: BinaryIO, table: str, options: SourceOptions) -> TextRows:
    for number, line in enumerate(read_lines(file), start=1):
        if not line.strip():
            continue
        row = f"{table}, line {number}"
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            yield row, None, CaptionError("is not JSON")
            continue
        values = values if isinstance(values, dict) else {}
        # Each line is an object of its own, and may name its columns in another way.
        image = find_column(list(values), options.image_column, IMAGE_COLUMNS)
        text = find_column(list(values), options.caption_column, TEXT_COLUMNS)
        yield row, values.get(image), values.get(text)


def _read_csv(file: BinaryIO, table: str, options: SourceOptions) -> TextRows:
    # The head is read twice: first to find the columns, then to skip it.
    columns = csv_columns(file)
    image, text = map(columns.index, find_columns(columns, options))
    file.seek(0)
    rows = _csv_rows(file)
    next(rows, None)  # the head
    for number, values in enumerate(rows, start=1):
        row = f"{table}, row {number}"
        if isinstance(values, csv.Error):
            yield row, None, CaptionError("row is damaged, or longer than a caption may be")
        elif values:
            name = values[image] if image < len(values) else None
            caption = values[text] if text < len(values) else None  # a short row
            yield row, name, caption and caption.encode("utf-8", "surrogateescape")


def _csv_rows(file: BinaryIO) -> Iterator[list[str] | csv.Error]:
    """Yield rows. Bytes that are not UTF-8 become halves of surrogate pairs."""
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    try:
        # Python's reader ends at a NUL character.
        rows = csv.reader(line.replace("\0", " ") for line in _csv_lines(text))
        while True:
            try:
                yield next(rows)
            except StopIteration:
                return
            except csv.Error as fault:
                yield fault
    finally:
        text.detach()  # otherwise it would close the file


def _csv_lines(text: TextIO) -> Iterator[str]:
    """Yield lines, cut to MAX_LINE characters: one without an end would fill the memory."""
    while line := text.readline(MAX_LINE):
        rest = line
        while len(rest) == MAX_LINE and not rest.endswith("\n"):
            rest = text.readline(MAX_LINE)
        yield line


def _read_parquet(file: BinaryIO, table: str, options: SourceOptions) -> TextRows:
    parquet = Parquet(file)
    image, text = find_columns(parquet.names, options)
    for first, batch in parquet.batches([image, text], TEXT_ROWS_AT_ONCE):
        if isinstance(batch, TableError):
            yield f"{table}, from row {first + 1}", None, CaptionError(str(batch))
            continue
        names = binaries(batch.column(image), LONGEST)
        texts = binaries(batch.column(text), LONGEST)
        for name, caption in zip(names, texts, strict=True):
            first += 1
            yield f"{table}, row {first}", name, caption


def csv_columns(file: BinaryIO) -> list[str]:
    """Return the names of a CSV table's columns. Errors: TableError."""
    file.seek(0)
    head = next(_csv_rows(file), [])
    if isinstance(head, csv.Error):
        raise TableError(DAMAGED)
    return head


def find_columns(columns: list[str], options: SourceOptions) -> tuple[str, str]:
    """Return the columns of images and captions.

    Errors: TableError if one is missing, or if two have its name.
    """
    image = find_column(columns, options.image_column, IMAGE_COLUMNS)
    text = find_column(columns, options.caption_column, TEXT_COLUMNS)
    for name, content in ((image, "images"), (text, "captions")):
        if name is None:
            existing = _shorten(columns) or "none"
            raise TableError(f"table lacks a column of {content}; it has {existing}")
        if columns.count(name) > 1:
            raise TableError(f"table has {columns.count(name)} columns of the name {name}")
    return image, text


def _shorten(columns: list[str]) -> str:
    """Return the first columns' names, so that a hostile table does not fill the screen."""
    names = [name[:80] for name in columns[:NAMED_COLUMNS]]
    if len(columns) > NAMED_COLUMNS:
        names.append("…")
    return decode_caption(", ".join(names))
