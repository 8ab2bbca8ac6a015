"""A part of DiffusionDB: the contents of its archive, and what the table of all parts says of its images."""

import json
from collections.abc import Collection, Iterator
from typing import Any, BinaryIO
from zipfile import ZipFile

import pyarrow
import pyarrow.compute

from ..captions import LONGEST
from ..examples import METHODS
from ..filters import readable
from .readers.parquet import BINARY, Parquet, TableError, binaries

DIRECTORY = (
    1 << 23
)  # bytes of an archive's directory: a part of 1,000 images has 100 KiB, and Python takes ten times as much
JSON = 1 << 23  # bytes of a part's JSON, of which Python may take 20 times as much
PROMPTS = 1 << 26  # bytes of a part's prompts in the table
ROWS = 4096  # rows of the table at once, at most
LISTED = 16  # values of a list, at most, where a number is expected
SHORT = 100  # bytes of a text of the table besides the prompt, such as the sampler's name


def contents(file: BinaryIO) -> tuple[list[str], dict | None]:
    """Return the names of a part's images in order, and its JSON: {} without one, None where it cannot be read.

    Errors: whatever a damaged archive raises.
    """
    with ZipFile(_Limited(file)) as archive:
        names = sorted({name for name in archive.namelist() if name.lower().endswith(".png")})
        found = next((each for each in archive.infolist() if each.filename.endswith(".json")), None)
        if found is None:
            return names, {}
        try:
            if (
                max(found.file_size, found.compress_size) > JSON
                or found.compress_type not in METHODS
            ):
                return names, None
            told = json.loads(archive.read(found))
        except Exception:  # of the archive, its compression, its JSON
            return names, None
        return names, told if isinstance(told, dict) else None


class _Limited:
    """A file whose reads are small: an archive's directory says itself how long it is, and is read at once."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self.seek, self.tell, self.close = file.seek, file.tell, file.close

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(DIRECTORY + 1 if size < 0 else min(size, DIRECTORY + 1))
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
) -> tuple[dict[str, dict[str, Any]], str]:
    """Return what the table says of a part's images, by their names, and what is wrong with some of it, if anything.

    names: of the images; columns: wanted besides the prompt, which is not decoded.
    Errors: TableError where the table cannot be read or lacks the scores.
    """
    table = Parquet(file)
    if missing := [name for name in ("image_name", "part_id", *scores) if name not in table.names]:
        raise TableError(f"it lacks {', '.join(missing)}")
    wanted = [name for name in ("image_name", "part_id", "prompt", *columns) if name in table.names]
    if twice := [name for name in wanted if table.names.count(name) > 1]:
        raise TableError(f"it has several columns of the name {twice[0]}")
    found, held, fault = {}, 0, ""
    for _, batch in table.batches(
        wanted, ROWS, lambda group: _may_hold(table.bounds(group, "part_id"), part)
    ):
        if isinstance(batch, TableError):
            fault = str(batch)
            continue
        for row in _rows(batch.filter(_of_part(batch.column("part_id"), part))):
            name = row["image_name"]
            if isinstance(name, str) and name in names and name not in found:
                found[name] = row
                held += len(row.get("prompt") or b"")
        if held > PROMPTS:
            raise TableError(f"it holds more than {PROMPTS >> 20} MiB of prompts for one part")
    return found, fault


def _may_hold(bounds: tuple[int, int] | None, part: int) -> bool:
    return bounds is None or bounds[0] <= part <= bounds[1]


def _of_part(numbers: pyarrow.Array, part: int) -> pyarrow.Array:
    if pyarrow.types.is_integer(numbers.type):
        return pyarrow.compute.equal(numbers, part)
    return pyarrow.array(
        [readable(number) == part for number in _values(numbers, SHORT)], pyarrow.bool_()
    )


def _rows(batch: pyarrow.RecordBatch) -> Iterator[dict[str, Any]]:
    columns = {
        name: _values(batch.column(name), LONGEST if name == "prompt" else SHORT)
        for name in batch.schema.names
    }
    for values in zip(*columns.values(), strict=True):
        row = dict(zip(columns, values, strict=True))
        yield {name: _text(value) if name != "prompt" else value for name, value in row.items()}


def _text(value: Any) -> Any:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value


def _values(column: pyarrow.Array, longest: int) -> Iterator[Any]:
    """The values of a column, texts undecoded; None for one that Python cannot have, such as a date beyond its years."""
    kind = column.type
    if kind in BINARY or pyarrow.types.is_dictionary(kind):
        yield from binaries(column, longest)
    elif pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind):
        yield from (
            [*_values(each.values, longest)] if each.is_valid and len(each) <= LISTED else None
            for each in column
        )
    elif kind.num_fields:
        yield from [None] * len(column)
    else:
        yield from map(_value, column)


def _value(scalar: pyarrow.Scalar) -> Any:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError, ArithmeticError, pyarrow.ArrowException):
        return None
