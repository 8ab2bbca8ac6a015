"""A part of DiffusionDB: the contents of its archive, and the table's rows of its images."""

import json
from collections.abc import Collection, Iterator
from typing import Any, BinaryIO
from zipfile import ZipFile

import pyarrow
import pyarrow.compute

from ..captions import LONGEST
from ..examples import METHODS
from ..filters import read_score
from .readers.parquet import BINARY, Parquet, TableError, binaries

# A part of 1,000 images has a directory of 100 KiB; Python takes ten times as much for it.
DIRECTORY = 1 << 23  # bytes of an archive's directory
JSON = 1 << 23  # bytes of a part's JSON, for which Python may take 20 times as much
PROMPTS = 1 << 26  # bytes of a part's prompts in the table
METADATA_ROWS = 4096  # rows of the table at once, at most
LISTED = 16  # values of a list, at most, if a number is expected
SHORT = 100  # bytes of a text of the table besides the prompt, such as the sampler's name
# TableRows of the table by the images' names.
TableRows = dict[str, dict[str, Any]]


def read_contents(file: BinaryIO) -> tuple[list[str], dict | None]:
    """Return the names of a part's images in order, and its JSON.

    The JSON is {} if there is none, None if it cannot be read.
    Errors: whatever a damaged archive raises.
    """
    with ZipFile(_BoundedFile(file)) as archive:
        names = {name for name in archive.namelist() if name.lower().endswith(".png")}
        return sorted(names), _read_json(archive)


def _read_json(archive: ZipFile) -> dict | None:
    members = [item for item in archive.infolist() if item.filename.endswith(".json")]
    if not members:
        return {}
    member = members[0]
    try:
        too_large = max(member.file_size, member.compress_size) > JSON
        if too_large or member.compress_type not in METHODS:
            return None
        values = json.loads(archive.read(member))
    except Exception:  # errors of the archive, its compression, its JSON
        return None
    return values if isinstance(values, dict) else None


class _BoundedFile:
    """A file whose reads are bounded: zipfile reads as long a directory as the archive claims."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self.seek = file.seek
        self.tell = file.tell
        self.close = file.close

    def read(self, size: int = -1) -> bytes:
        bound = DIRECTORY + 1
        data = self._file.read(bound if size < 0 else min(size, bound))
        if len(data) > DIRECTORY:
            raise ValueError("directory of an archive is too long")
        return data

    def seekable(self) -> bool:
        return True


def rows_of_part(
    file: BinaryIO,
    part: int,
    names: Collection[str],
    columns: Collection[str],
    scores: Collection[str],
) -> tuple[TableRows, str]:
    """Return the table's rows of a part's images, and the fault of unreadable row groups, or "".

    names: of the images.
    columns: to be read besides the prompt, which is not decoded.
    Errors: TableError if the table cannot be read or lacks the scores.
    """
    table = Parquet(file)
    columns = _existing_columns(table, columns, scores)
    rows = {}
    fault = ""
    n_bytes = 0

    def may_hold_part(group: int) -> bool:
        bounds = table.bounds(group, "part_id")
        return bounds is None or bounds[0] <= part <= bounds[1]

    for _, batch in table.batches(columns, METADATA_ROWS, may_hold_part):
        if isinstance(batch, TableError):
            fault = str(batch)
            continue
        for row in _read_rows(batch.filter(_is_of_part(batch.column("part_id"), part))):
            name = row["image_name"]
            if isinstance(name, str) and name in names and name not in rows:
                rows[name] = row
                n_bytes += len(row.get("prompt") or b"")
        if n_bytes > PROMPTS:
            raise TableError(f"it holds more than {PROMPTS >> 20} MiB of prompts for one part")
    return rows, fault


def _existing_columns(
    table: Parquet,
    columns: Collection[str],
    scores: Collection[str],
) -> list[str]:
    """Return the columns that the table has. Errors: TableError."""
    missing = [name for name in ("image_name", "part_id", *scores) if name not in table.names]
    if missing:
        raise TableError(f"it lacks {', '.join(missing)}")
    names = ("image_name", "part_id", "prompt", *columns)
    existing = [name for name in names if name in table.names]
    for name in existing:
        if table.names.count(name) > 1:
            raise TableError(f"it has several columns of the name {name}")
    return existing


def _is_of_part(numbers: pyarrow.Array, part: int) -> pyarrow.Array:
    if pyarrow.types.is_integer(numbers.type):
        return pyarrow.compute.equal(numbers, part)
    # A copy may store numbers as texts or floats.
    matches = [read_score(number) == part for number in _values(numbers, SHORT)]
    return pyarrow.array(matches, pyarrow.bool_())


def _read_rows(batch: pyarrow.RecordBatch) -> Iterator[dict[str, Any]]:
    columns = {}
    for name in batch.schema.names:
        values = _values(batch.column(name), LONGEST if name == "prompt" else SHORT)
        columns[name] = values if name == "prompt" else map(_as_text, values)
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(columns, values, strict=True))


def _as_text(value: Any) -> Any:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value


def _values(column: pyarrow.Array, longest: int) -> Iterator[Any]:
    """Yield the values of a column, texts as bytes; None for structs and long lists."""
    kind = column.type
    if kind in BINARY or pyarrow.types.is_dictionary(kind):
        yield from binaries(column, longest)
    elif pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind):
        for scalar in column:
            short = scalar.is_valid and len(scalar) <= LISTED
            yield list(_values(scalar.values, longest)) if short else None
    elif kind.num_fields:
        yield from [None] * len(column)
    else:
        yield from map(_as_python, column)


def _as_python(scalar: pyarrow.Scalar) -> Any:
    """Return a value; None if Python cannot represent it, such as a date beyond its years."""
    try:
        return scalar.as_py()
    except (ValueError, OverflowError, ArithmeticError, pyarrow.ArrowException):
        return None
