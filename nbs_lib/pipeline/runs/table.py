"""Runs as rows of plain values, read from their folders alone, and chosen and ordered by any of them."""

import fnmatch
import re
from collections.abc import Collection, Iterable
from typing import Any

from ...config import STAGES
from ...config.validation import ParameterError
from ...run.out_of_date import outdated_stages
from ...run.record import is_number
from ...run.run import Run, RunError
from ...run.terminal_text import printable
from ..paths import did_you_mean, outputs, run_names

NOT_NUMBERS = (
    "parameters",
    "inputs",
    "outputs",
    "versions",
    "machine",
    "status",
    "started",
    "commit",
    "tables",
    "resolved",
)
"""Parts of a stage's record that say what it rests on, and not what it came to."""
NOT_SHOWN = ("run", "replace")
"""Parameters that say nothing of a result."""
COLUMNS = (
    "name",
    "status",
    "started",
    "seconds",
    "train.steps",
    "train.loss",
    "held_out",
    "recovered",
)
SHORT = {
    "held_out": "train.held_out_loss.last",
    "recovered": "compare.guidance_recovered.value",
    "rate": "compare.contenders.tuned.caption_first.rate",
    "loss": "train.loss",
}
"""Words for what is asked for most."""

OUT_OF_DATE = "out of date"
"""The status of a run with a stage that rests on another result than the run now has; its value `outdated` says which."""
DONE = {"prepare": "prepared", "train": "trained", "compare": "done"}
"""What a run is whose last stage so far is done."""

Row = dict[str, Any]
"""A run's values by dotted name: name, status, recipe, started, seconds; `train.steps` and all other parameters;
`train.loss` and all other numbers that its stages came to."""


def list_rows(names: Collection[str] | None = None) -> list[Row]:
    """Return every run of outputs/, by name; one whose record is damaged says so. names: see `row`."""
    return [run_values(Run(outputs() / name), names) for name in run_names()]


def run_values(run: Run, names: Collection[str] | None = None) -> Row:
    """Return a run's values. names: the values to look for, which is quicker for two thousand runs; None for all."""
    try:
        record = run.read()
    except RunError:
        return {"name": run.name, "status": "damaged"}
    stages = {stage: told for stage, told in record.get("stages", {}).items() if stage in STAGES}
    asked = record.get("asked", {})
    values: Row = {
        "name": run.name,
        "status": status(run, record, past := outdated_stages(record)),
        "recipe": asked.get("recipe"),
        "started": min(
            (told["started"] for told in stages.values() if told.get("started")), default=None
        ),
        "seconds": round(sum(told.get("seconds", 0) for told in stages.values()), 1),
    }
    wanted = None if names is None else _beginnings(SHORT.get(name, name) for name in names)
    for stage in STAGES:
        _add(stage, asked.get(stage, {}), values, wanted)
    for stage, told in stages.items():
        _add(stage, told.get("parameters", {}) | told.get("resolved", {}), values, wanted)
        if stage not in past:  # or else its numbers would stand beside what they are not of
            numbers = {name: value for name, value in told.items() if name not in NOT_NUMBERS}
            _flat(stage, numbers, values, wanted)
    if past:
        values["outdated"] = ", ".join(past)
    return values | {short: values[full] for short, full in SHORT.items() if full in values}


def status(run: Run, record: dict[str, Any], past: dict[str, str]) -> str:
    """running, done, failed or interrupted, as the record says; `interrupted` too where it was killed before it could say.

    `out of date` where a finished stage rests on another result than the run now has. `prepared`, `trained` or `done`, after
    the stage that was done last, where stages are done one by one in notebooks.
    """
    said = record.get("status", "running")
    if said != "running" or run.is_active():
        return OUT_OF_DATE if past and said == "done" else said
    if past and "asked" not in record:
        return OUT_OF_DATE
    stages = {stage: told for stage, told in record.get("stages", {}).items() if stage in DONE}
    done = {
        told.get("started", ""): DONE[stage]
        for stage, told in stages.items()
        if told.get("status") == "done"
    }
    if stages and len(done) == len(stages) and "asked" not in record:
        return done[max(done)]
    return "interrupted"


def _beginnings(names: Iterable[str]) -> set[str]:
    """Return dotted names and everything that one begins with: `train`, `train.loss`."""
    parts = [name.split(".") for name in names]
    return {".".join(each[:length]) for each in parts for length in range(1, len(each) + 1)}


def _add(stage: str, parameters: dict[str, Any], found: Row, wanted: set[str] | None):
    for name, value in parameters.items():
        full = f"{stage}.{name}"
        if name not in NOT_SHOWN and (wanted is None or full in wanted):
            found[full] = value


def _flat(name: str, value: Any, found: Row, wanted: set[str] | None = None):
    """Add numbers and short texts of nested parts to `found`, by dotted name; of a list the last number too, as NAME.last."""
    if wanted is not None and name not in wanted:
        return
    if isinstance(value, dict):
        for part, inner in value.items():
            _flat(f"{name}.{part}", inner, found, wanted)
    elif isinstance(value, list):
        if value and all(map(is_number, value)):
            found |= {f"{name}.first": value[0], f"{name}.last": value[-1]}
    elif isinstance(value, str) or is_number(value):
        found[name] = value


def select_rows(
    found: list[Row], pattern: str = "", where: list[str] = (), sort: str = ""
) -> list[Row]:
    """The rows that a pattern (`demo*`) and all conditions (`train.rank=8`, `loss<0.1`) hold for, ordered by a value.

    sort: a name, smallest first, or -name, largest first; rows without it come last. Errors: ParameterError.
    """
    names = sorted({name for each in found for name in each}) if where or sort else []
    if pattern:
        found = [each for each in found if fnmatch.fnmatchcase(each["name"], pattern)]
    for condition in where:
        match = re.fullmatch(r"([\w.]+)(=|<|>)(.*)", condition)
        if not match:
            raise ParameterError(
                f"--where {condition}: allowed is NAME=VALUE, NAME<VALUE or NAME>VALUE"
            )
        name, how, wanted = resolve_name(match[1], names, "--where"), match[2], match[3]
        found = [each for each in found if _holds(each.get(name), how, wanted, condition)]
    if sort:
        down, name = sort.startswith("-"), resolve_name(sort.removeprefix("-"), names, "--sort")
        there = [each for each in found if each.get(name) is not None]
        numbers = all(is_number(each[name]) for each in there)
        ordered = sorted(
            there, key=lambda each: each[name] if numbers else str(each[name]), reverse=down
        )
        found = ordered + [each for each in found if each.get(name) is None]
    return found


def resolve_name(given: str, names: list[str], option: str) -> str:
    """The full name of a value, of which an unmistakable end is enough. Errors: ParameterError."""
    if given in names or not names:
        return given
    ends = [name for name in names if name.endswith(f".{given}")]
    if len(ends) == 1:
        return ends[0]
    if ends:
        raise ParameterError(f"{option}: given {given!r}; it may be {', '.join(ends)}: say which")
    hint = did_you_mean(given, names) or "; `onepass show RUN --json` has all of them"
    raise ParameterError(f"{option}: given {given!r}; no run has a value of that name{hint}")


def _holds(value: Any, how: str, wanted: str, condition: str) -> bool:
    if is_number(value):
        try:
            number = float(wanted)
        except ValueError:
            raise ParameterError(f"--where {condition}: {wanted!r} is to be a number") from None
        return {"=": value == number, "<": value < number, ">": value > number}[how]
    if value is None or how != "=":
        return False
    return str(value).lower() == wanted.lower() if isinstance(value, bool) else str(value) == wanted


def columns(found: list[Row], wanted: list[str]) -> list[list[str]]:
    """A table of text with its head, without columns that no run has a value for."""
    wanted = [
        name
        for name in wanted
        if name in ("name", "status") or any(each.get(name) is not None for each in found)
    ]
    return [
        [printable(name) for name in wanted],
        *([format_cell(name, each.get(name)) for name in wanted] for each in found),
    ]


def format_cell(name: str, value: Any) -> str:
    if value is None:
        return "–"
    if name == "started":
        return printable(value)[:16].replace("T", " ")
    if name == "seconds":
        from ..progress import format_duration

        return format_duration(value)
    return f"{value:.4g}" if isinstance(value, float) else printable(value)


def align_columns(table: list[list[str]]) -> list[str]:
    """A table as lines of text, its columns side by side."""
    widths = [max(len(line[place]) for line in table) for place in range(len(table[0]))]
    return [
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in table
    ]
