"""Results that no longer belong to what lies beside them, and finished results that nobody asked to replace."""

from pathlib import Path
from typing import Any

from ..config import PLACE, STAGES
from ..config.validation import as_parameters
from ..files import value_hash, write_atomic
from .locks import RunError

REPORT_MARK = (
    '\n<p role="alert" class="outdated"><strong>Out of date:</strong> this report is of an earlier result of the run, '
    "which was trained or prepared again since.</p>\n"
)
BODY = "<body>"
LONGEST = 60
"""Letters of a value in a sentence."""


def outputs_hash(record: dict[str, Any], stage: str) -> str:
    """Return the hash of what a stage came to, which later stages rest on."""
    return value_hash(record.get("stages", {}).get(stage, {}).get("outputs", {}))


def outdated_stages(record: dict[str, Any]) -> dict[str, str]:
    """Return the finished stages that rest on something else than the run now has, each with the earlier stage that changed."""
    found: dict[str, str] = {}
    order, stages = list(STAGES), record.get("stages", {})
    hashes = {stage: outputs_hash(record, stage) for stage in order[:-1]}
    for place, stage in enumerate(order):
        known = stages.get(stage, {})
        if known.get("status") == "done":
            then = known.get("inputs", {})
            changed = [
                each
                for each in order[:place]
                if each in found or then.get(each, hashes[each]) != hashes[each]
            ]
            found |= {stage: changed[0]} if changed else {}
    return found


def mark_report(report: Path, record: dict[str, Any]):
    """Write on a run's report that it is out of date, or take that away again where it is not.

    Do nothing without a report, and until the comparison that it is of is done again.
    """
    done = record.get("stages", {}).get("compare", {}).get("status") == "done"
    if not done or report.is_symlink() or not report.is_file():
        return
    page = report.read_bytes()
    bare = page.replace(REPORT_MARK.encode(), b"", 1)
    marked = (
        bare.replace(BODY.encode(), (BODY + REPORT_MARK).encode(), 1)
        if "compare" in outdated_stages(record)
        else bare
    )
    if marked != page:
        write_atomic(report, marked)


def differing_parameters(then: dict[str, Any], now: dict[str, Any]) -> str:
    """Say which parameters differ, without those that say where and how a stage is done."""
    other = [name for name, value in now.items() if name not in PLACE and then.get(name) != value]
    return ", ".join(
        f"{name} was {_short(then.get(name))}, is {_short(now[name])}" for name in other
    )


def _short(value: Any) -> str:
    return str(value) if len(str(value)) <= LONGEST else f"{str(value)[:LONGEST]}…"


def check_replaceable(folder: Path, stage: str, known: dict[str, Any], parameters: dict[str, Any]):
    """Errors: RunError where a stage is done with other parameters and is not asked to be replaced."""
    if known.get("status") != "done" or parameters.get("replace"):
        return
    usual = as_parameters(STAGES[stage]())  # of parameters that there were not yet
    if differ := differing_parameters(usual | known.get("parameters", {}), parameters):
        raise RunError(
            f"{folder} has a finished {stage} stage with other parameters ({differ}), which would be lost; give another run, "
            "or replace = True to do it again with these"
        )
