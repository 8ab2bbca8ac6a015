"""What a run's record may hold, checked once where it is read: a run's neighbours read it as well."""

from pathlib import Path, PurePosixPath
from typing import Any

from ..files import parse_object, whole_lines
from ..untrusted_files import read_json

TEXT_MAP = dict[str, str]
RECORD_FIELDS = {
    "name": str,
    "status": str,
    "commit": str | None,
    "versions": dict,
    "machine": dict,
    "asked": dict,
    "stages": dict,
}
STAGE_FIELDS = {
    "status": str,
    "started": str,
    "seconds": float,
    "parameters": dict,
    "resolved": dict,
    "inputs": TEXT_MAP,
    "outputs": TEXT_MAP,
    "error": str,
    "commit": str | None,
    "versions": dict,
    "machine": dict,
}
"""Of a record and of a stage in it the names that are read elsewhere; any may be missing, and others may be there."""
METRICS = {"step", "loss", "held_out_loss", "lr", "seconds", "examples_per_s"}
"""Names in a line of metrics.jsonl that are numbers."""
LONGEST = 1e9
"""Seconds of a stage."""


class RecordError(ValueError):
    """A record that holds what no run has written: which name."""


def read_record(path: Path) -> dict[str, Any]:
    """Return a run's record. Errors: FileNotFoundError; OSError; ValueError for a damaged one."""
    record = read_json(path)
    _check("", record, RECORD_FIELDS)
    for stage, known in record.get("stages", {}).items():
        _check(f"stages.{stage}", known, STAGE_FIELDS)
        for name in known.get("outputs", {}):
            if not is_plain_relative(name):
                raise RecordError(f"stages.{stage}.outputs")
    asked = record.get("asked", {})
    _check(
        "asked", asked, {"recipe": str | None} | {name: dict for name in asked if name != "recipe"}
    )
    return record


def metrics_line(line: bytes) -> dict[str, Any] | None:
    """Return a line of metrics.jsonl; None where it is none: one that was cut off, or damaged."""
    row = parse_object(line)
    if (
        row is None
        or not isinstance(row.get("step"), int)
        or not all(is_number(row[name]) for name in METRICS & row.keys())
    ):
        return None
    return row


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl; [] without a file."""
    return [
        row for line in whole_lines(path).split(b"\n") if (row := metrics_line(line)) is not None
    ]


def is_plain_relative(name: str) -> bool:
    """Whether a name is a plain relative path of a file, which leads nowhere else."""
    parts = PurePosixPath(name).parts
    return (
        bool(parts)
        and parts[0] != "/"
        and ".." not in parts
        and "\0" not in name
        and max(map(len, parts)) < 256
    )


def is_number(value: Any) -> bool:
    """Whether a value is a number that can be computed with; a whole number may be too large for that."""
    return isinstance(value, float) or (
        isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63
    )


def _check(where: str, value: Any, types: dict[str, Any]):
    """Errors: RecordError where a value is no object, or a name in it is of another type than these."""
    if not isinstance(value, dict):
        raise RecordError(where or "outermost value")
    for name, wanted in types.items():
        if name in value and not _is(value[name], wanted):
            raise RecordError(f"{where}.{name}".lstrip("."))


def _is(value: Any, wanted: Any) -> bool:
    if wanted is TEXT_MAP:
        return isinstance(value, dict) and all(isinstance(each, str) for each in value.values())
    if wanted is float:
        return is_number(value) and 0 <= value <= LONGEST
    return isinstance(value, wanted)
