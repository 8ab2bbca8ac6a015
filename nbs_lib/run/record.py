"""The record of a run, run.json, whose types are checked once when it is read.

run.json
  name                         the run's
  status                       running, done, failed or interrupted
  asked                        the recipe's name and the parameters of each stage, as the command
                               requested them; only runs of the command have it
  versions, commit, machine    of the last stage that was started
  stages
    prepare, train, compare
      status, started, seconds
      parameters               all of them, as they were given
      resolved                 of train: the values that `auto` and 0 stand for on this machine
      inputs                   the hash of each thing that the result depends on, by its name
      outputs                  the hash of each file that later stages depend on, by its path
      error                    of a failed stage, in one sentence
      versions, commit, machine
      …                        and the results of the stage

Other runs' commands read a run's record too, so a damaged one must not stop them.
"""

from pathlib import Path, PurePosixPath
from typing import Any

from ..files import parse_object, read_jsonl
from ..untrusted_files import read_json

TEXT_MAP = dict[str, str]
# Fields that are read elsewhere. Any of them may be missing, and others may stand beside them.
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
    "weights_source": str,
    "commit": str | None,
    "versions": dict,
    "machine": dict,
}
# Fields in a line of metrics.jsonl that are numbers.
METRICS = {"step", "loss", "held_out_loss", "best_step", "lr", "seconds", "examples_per_s"}
MAX_STAGE_SECONDS = 1e9
MAX_PART_LENGTH = 256  # of one part of a path; file systems allow no longer ones


class RecordError(ValueError):
    """A record with a value that no run writes; its text is the field's name."""


def read_record(path: Path) -> dict[str, Any]:
    """Return a run's record.

    Errors: FileNotFoundError; OSError; ValueError if it is damaged
    """
    record = read_json(path)
    _check_types("", record, RECORD_FIELDS)
    # outputs are opened and hashed: their names must not lead out of the run
    for stage, stage_record in record.get("stages", {}).items():
        _check_types(f"stages.{stage}", stage_record, STAGE_FIELDS)
        if not all(map(is_plain_relative, stage_record.get("outputs", {}))):
            raise RecordError(f"stages.{stage}.outputs")
    requested = record.get("asked", {})
    # the recipe is a name, everything beside it the parameters of a stage
    types = dict.fromkeys(requested, dict) | {"recipe": str | None}
    _check_types("asked", requested, types)
    return record


def metrics_line(line: bytes) -> dict[str, Any] | None:
    """Return a line of metrics.jsonl; None if it is cut off or damaged."""
    row = parse_object(line)
    # every other field may be missing
    if row is None or not isinstance(row.get("step"), int):
        return None
    return row if all(is_number(row[name]) for name in METRICS & row.keys()) else None


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl; [] without a file."""
    return read_jsonl(path, metrics_line)


def is_plain_relative(name: str) -> bool:
    """Return True for a relative path that stays in its folder."""
    parts = PurePosixPath(name).parts
    if not parts or parts[0] == "/" or ".." in parts or "\0" in name:
        return False
    # a longer name raises OSError on every use
    return max(map(len, parts)) < MAX_PART_LENGTH


def is_number(value: Any) -> bool:
    """Return True for a number that can be computed with."""
    if isinstance(value, float):
        return True
    # an integer in JSON may have any length, and bool is a kind of int
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63


def _check_types(path: str, value: Any, types: dict[str, Any]):
    """Check that a value is an object whose fields have these types, as far as they exist.

    path: of the value in the record, for the error

    Errors: RecordError
    """
    if not isinstance(value, dict):
        raise RecordError(path or "outermost value")
    for name, kind in types.items():
        if name in value and not _is_instance(value[name], kind):
            raise RecordError(f"{path}.{name}".lstrip("."))


def _is_instance(value: Any, kind: Any) -> bool:
    if kind is TEXT_MAP:
        return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())
    if kind is float:
        return is_number(value) and 0 <= value <= MAX_STAGE_SECONDS
    return isinstance(value, kind)
