"""Rows of runs, selected and sorted by any of their values."""

import fnmatch
import re
from typing import Any

from ...config.validation import ParameterError
from ...run.record import is_number
from ..paths import did_you_mean
from .table import Row


def select_rows(
    rows: list[Row],
    pattern: str = "",
    where: list[str] = (),
    sort: str = "",
) -> list[Row]:
    """Return the rows that match, sorted.

    pattern: of names, such as `demo*`
    where: conditions that must all hold, such as `train.rank=8` or `loss<0.1`
    sort: NAME for the smallest first, -NAME for the largest; rows without a value come last

    Errors: ParameterError.
    """
    names = value_names(rows)
    if pattern:
        rows = [row for row in rows if fnmatch.fnmatchcase(row["name"], pattern)]
    for condition in where:
        rows = _filter(rows, condition, names)
    return _sort(rows, sort, names) if sort else rows


def value_names(rows: list[Row]) -> list[str]:
    """Return the sorted names of all values in the rows."""
    return sorted(set().union(*rows))


def resolve_name(name: str, names: list[str], option: str) -> str:
    """Return the full name of a value, of which an unambiguous end is enough.

    option: the command's, for the error

    Errors: ParameterError.
    """
    # without runs there are no names to choose from
    if name in names or not names:
        return name
    # a dot before it: `loss` is no end of `held_out_loss`
    matches = [full_name for full_name in names if full_name.endswith(f".{name}")]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise ParameterError(
            f"{option}: given {name!r}; it may be {', '.join(matches)}: give one of them"
        )
    hint = did_you_mean(name, names) or "; `onepass show RUN --json` has all of them"
    raise ParameterError(f"{option}: given {name!r}; no run has a value of that name{hint}")


def _filter(rows: list[Row], condition: str, names: list[str]) -> list[Row]:
    match = re.fullmatch(r"([\w.]+)([=<>])(.*)", condition)
    if not match:
        allowed = "NAME=VALUE, NAME<VALUE or NAME>VALUE"
        raise ParameterError(f"--where {condition}: allowed is {allowed}")
    name = resolve_name(match[1], names, "--where")
    return [row for row in rows if _holds(row.get(name), match[2], match[3], condition)]


def _holds(
    value: Any,
    operator: str,
    text: str,
    condition: str,
) -> bool:
    if is_number(value):
        try:
            number = float(text)
        except ValueError:
            raise ParameterError(f"--where {condition}: {text!r} must be a number") from None
        return {"=": value == number, "<": value < number, ">": value > number}[operator]
    if value is None or operator != "=":
        return False
    if isinstance(value, bool):
        # `true` as in YAML, `True` as Python prints it
        return str(value).lower() == text.lower()
    return str(value) == text


def _sort(rows: list[Row], sort: str, names: list[str]) -> list[Row]:
    name = resolve_name(sort.removeprefix("-"), names, "--sort")
    filled = [row for row in rows if row.get(name) is not None]
    empty = [row for row in rows if row.get(name) is None]
    # numbers and texts cannot be compared with one another
    numeric = all(is_number(row[name]) for row in filled)
    filled.sort(key=lambda row: row[name] if numeric else str(row[name]), reverse=sort[0] == "-")
    return filled + empty
