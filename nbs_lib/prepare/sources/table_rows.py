"""The rows of tables of images and captions: `.jsonl`, `.csv` and `.parquet`, each of them with what is wrong with it."""

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
    column,
    decode_caption,
    lines,
)
from . import SourceOptions
from .readers.parquet import DAMAGED, Parquet, TableError, binaries

ENDINGS = (".jsonl", ".csv", ".parquet")
ROWS = 256  # of a parquet file at once
LINE = 1 << 22  # characters of a row of a CSV table
SHOWN = 20  # columns that an error names
csv.field_size_limit(LINE)
Text = str | bytes | CaptionError


def named_images(file: BinaryIO, table: str, how: SourceOptions) -> Iterator[tuple[str, str, Text]]:
    """Yield of each row where it is, the file that it names, and its text or what is wrong with it.

    table: name of the table, whose ending says what it is. Errors: TableError.
    """
    kind = os.path.splitext(table)[1].lower()
    table = decode_caption(table)
    rows = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}[kind](file, table, how)
    lacks = CaptionError(
        f"lacks {how.image_column or 'file_name'} or {how.caption_column or 'text'}"
    )
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


def _jsonl(file: BinaryIO, table: str, how: SourceOptions) -> Iterator[tuple[str, Any, Any]]:
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
        image, text = (
            column(list(row), how.image_column, IMAGE_COLUMNS),
            column(list(row), how.caption_column, TEXT_COLUMNS),
        )
        yield where, row.get(image), row.get(text)


def _csv(file: BinaryIO, table: str, how: SourceOptions) -> Iterator[tuple[str, Any, Any]]:
    columns = head_of_csv(file)
    image, text = (columns.index(name) for name in columns_of(columns, how))
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
        rows = csv.reader(line.replace("\0", " ") for line in _lines(text))
        while True:
            try:
                yield next(rows)
            except StopIteration:
                return
            except csv.Error as fault:
                yield fault
    finally:
        text.detach()  # or it would close the file


def _lines(text: TextIO) -> Iterator[str]:
    """The lines, none of them read further than a row may be long: one without an end would fill the memory."""
    while line := text.readline(LINE):
        rest = line
        while len(rest) == LINE and not rest.endswith("\n"):
            rest = text.readline(LINE)
        yield line


def _parquet(file: BinaryIO, table: str, how: SourceOptions) -> Iterator[tuple[str, Any, Any]]:
    parquet = Parquet(file)
    image, text = columns_of(parquet.names, how)
    for number, batch in parquet.batches([image, text], ROWS):
        if isinstance(batch, TableError):
            yield f"{table}, from row {number + 1}", None, CaptionError(str(batch))
            continue
        names, texts = (binaries(batch.column(name), LONGEST) for name in (image, text))
        for row, (name, said) in enumerate(zip(names, texts, strict=True), start=number + 1):
            yield f"{table}, row {row}", name, said


def head_of_csv(file: BinaryIO) -> list[str]:
    """The names of a CSV table's columns. Errors: TableError."""
    file.seek(0)
    found = next(_csv_rows(file), [])
    if isinstance(found, csv.Error):
        raise TableError(DAMAGED)
    return found


def columns_of(known: list[str], how: SourceOptions) -> tuple[str, str]:
    """The columns of images and of captions. Errors: TableError where one is missing or there twice."""
    found = (
        column(known, how.image_column, IMAGE_COLUMNS),
        column(known, how.caption_column, TEXT_COLUMNS),
    )
    for name, what in zip(found, ("images", "captions"), strict=True):
        if name is None:
            shown = decode_caption(", ".join(each[:80] for each in known[:SHOWN])) + (
                "" if len(known) <= SHOWN else ", …"
            )
            raise TableError(f"table lacks a column of {what}; it has {shown or 'none'}")
        if known.count(name) > 1:
            raise TableError(f"table has {known.count(name)} columns of the name {name}")
    return found
