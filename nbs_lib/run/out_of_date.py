"""Finished stages whose inputs changed since, and their protection against replacement."""

from pathlib import Path
from typing import Any

from ..config import PLACE, STAGES
from ..config.validation import as_parameters
from ..files import value_hash, write_atomic
from .locks import RunError

REPORT_MARK = (
    '\n<p role="alert" class="outdated"><strong>Out of date:</strong> this report is of an earlier '
    "result of the run, which was trained or prepared again since.</p>\n"
)
BODY = "<body>"
MAX_VALUE_LENGTH = 60  # characters of a parameter's value in an error


def outputs_hash(record: dict[str, Any], stage: str) -> str:
    """Return the hash of a stage's outputs, which later stages depend on."""
    return value_hash(record.get("stages", {}).get(stage, {}).get("outputs", {}))


def outdated_stages(record: dict[str, Any]) -> dict[str, str]:
    """Return each finished stage whose inputs changed, with the earlier stage that changed."""
    outdated: dict[str, str] = {}
    stages = list(STAGES)
    hashes = {stage: outputs_hash(record, stage) for stage in stages[:-1]}
    for index, stage in enumerate(stages):
        stage_record = record.get("stages", {}).get(stage, {})
        if stage_record.get("status") != "done":
            continue
        inputs = stage_record.get("inputs", {})
        for earlier in stages[:index]:
            # an older run has no hash of a stage in its inputs: it counts as unchanged
            if earlier in outdated or inputs.get(earlier, hashes[earlier]) != hashes[earlier]:
                outdated[stage] = earlier
                break
    return outdated


def mark_report(report: Path, record: dict[str, Any]):
    """Write on a run's report that it is out of date, or remove that mark.

    Does nothing without a report or while the comparison is not finished.
    """
    # during a comparison the report is still of the earlier one
    compared = record.get("stages", {}).get("compare", {}).get("status") == "done"
    if not compared or report.is_symlink() or not report.is_file():
        return
    # bytes, because a report that was edited by hand may have any encoding
    page = report.read_bytes()
    # removed first, so that a page is never marked twice
    marked = page.replace(REPORT_MARK.encode(), b"", 1)
    if "compare" in outdated_stages(record):
        marked = marked.replace(BODY.encode(), (BODY + REPORT_MARK).encode(), 1)
    if marked != page:
        write_atomic(report, marked)


def describe_differences(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Return the parameters that differ with both values, without those of where a stage runs."""
    names = [name for name in now if name not in PLACE and before.get(name) != now[name]]
    return ", ".join(
        f"{name} was {_short(before.get(name))}, is {_short(now[name])}" for name in names
    )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= MAX_VALUE_LENGTH else f"{text[:MAX_VALUE_LENGTH]}…"


def check_replaceable(
    folder: Path, stage: str, stage_record: dict[str, Any], parameters: dict[str, Any]
):
    """Check that a stage may run with these parameters.

    Errors: RunError if it is finished with other parameters and `replace` is off
    """
    if stage_record.get("status") != "done" or parameters.get("replace"):
        return
    # an older run may lack parameters that are new: they count as defaults
    before = as_parameters(STAGES[stage]()) | stage_record.get("parameters", {})
    differences = describe_differences(before, parameters)
    if differences:
        raise RunError(
            f"{folder} has a finished {stage} stage with other parameters ({differences}), "
            "which would be lost; give another run, or replace = True to do it again with these"
        )
