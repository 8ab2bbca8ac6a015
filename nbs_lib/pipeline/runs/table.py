"""Runs as rows of plain values, read from their folders alone, and as a table of text."""

import itertools
from collections.abc import Collection
from typing import Any

from ...config import STAGES
from ...run.out_of_date import outdated_stages
from ...run.record import is_number
from ...run.run import Run, RunError
from ...run.terminal_text import printable
from ..paths import outputs, run_names
from ..progress import format_duration

# parts of a stage's record that its result depends on, and no part of the result
NOT_RESULTS = (
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
# parameters that say nothing about a result
HIDDEN_PARAMETERS = ("run", "replace")
COLUMNS = (
    "name",
    "status",
    "started",
    "seconds",
    "train.steps",
    "train.loss",
    "held_out",
    "recovered",
    "distance_ratio",
    "nearer",
)
# short names of the values that people look for most
SHORT = {
    "held_out": "train.held_out_loss.last",
    "recovered": "compare.guidance_recovered.value",
    "distance_ratio": "compare.contenders.tuned.fidelity.distance_ratio.value",
    "nearer": "compare.contenders.tuned.fidelity.nearer.rate",
    "rate": "compare.contenders.tuned.caption_first.rate",
    "loss": "train.loss",
}

# status of a run with a stage whose inputs have changed since; its value `outdated` names it
OUT_OF_DATE = "out of date"
# status of a run by the stage that finished last, if its stages are executed one by one
STATUS_AFTER = {"prepare": "prepared", "train": "trained", "compare": "done"}

# A run's values by dotted name: name, status, recipe, started and seconds; all parameters, such as
# `train.steps`; all numbers of its stages' results, such as `train.loss`
Row = dict


def list_rows(names: Collection[str] | None = None) -> list[Row]:
    """Return a row for every run in outputs/, sorted by name. names: see `run_values`."""
    return [run_values(Run(outputs() / name), names) for name in run_names()]


def run_values(run: Run, names: Collection[str] | None = None) -> Row:
    """Return a run's values; of a run with a damaged record name and status.

    names: values to look for, None for all; few names are quicker for two thousand runs
    """
    try:
        record = run.read()
    except RunError:
        # one damaged run must not hide the others
        return {"name": run.name, "status": "damaged"}
    request = record.get("asked", {})
    outdated = outdated_stages(record)
    records = record.get("stages", {})
    stages = {stage: records[stage] for stage in records if stage in STAGES}
    started = [fields["started"] for fields in stages.values() if fields.get("started")]
    row: Row = {
        "name": run.name,
        "status": status(run, record, outdated),
        "recipe": request.get("recipe"),
        "started": min(started, default=None),
        "seconds": round(sum(fields.get("seconds", 0) for fields in stages.values()), 1),
    }
    prefixes = None if names is None else _prefixes(names)
    for stage in STAGES:
        _add_parameters(row, stage, request.get(stage, {}), prefixes)
    for stage, fields in stages.items():
        parameters = fields.get("parameters", {}) | fields.get("resolved", {})
        _add_parameters(row, stage, parameters, prefixes)
        # numbers of an outdated stage would stand beside parameters they do not belong to
        if stage not in outdated:
            results = {name: value for name, value in fields.items() if name not in NOT_RESULTS}
            _add_numbers(row, stage, results, prefixes)
    if outdated:
        row["outdated"] = ", ".join(outdated)
    return row | {name: row[full_name] for name, full_name in SHORT.items() if full_name in row}


def status(run: Run, record: dict, outdated: dict[str, str]) -> str:
    """Return `running`, `done`, `failed`, `interrupted` or `out of date`.

    Runs whose stages are executed one by one are also `prepared` or `trained`.
    """
    recorded = record.get("status", "running")
    if recorded != "running" or run.is_active():
        return OUT_OF_DATE if outdated and recorded == "done" else recorded
    # a command that is killed cannot record it: no process works on the run any more
    if "asked" in record:
        return "interrupted"
    if outdated:
        return OUT_OF_DATE
    stages = record.get("stages", {})
    ends = {
        stages[stage].get("started", ""): name
        for stage, name in STATUS_AFTER.items()
        if stage in stages and stages[stage].get("status") == "done"
    }
    all_done = len(ends) == sum(stage in stages for stage in STATUS_AFTER)
    return ends[max(ends)] if ends and all_done else "interrupted"


def finished_stages(record: dict) -> list[str]:
    """Return the stages that are done, and rest on the last results of those before them."""
    stages = record.get("stages", {})
    finished = {name for name in STAGES if stages.get(name, {}).get("status") == "done"}
    finished -= outdated_stages(record).keys()
    return list(itertools.takewhile(lambda stage: stage in finished, STAGES))


def status_of_stages(record: dict) -> str:
    """Return the status of a run whose stages are executed one by one."""
    finished = finished_stages(record)
    return STATUS_AFTER[finished[-1]] if finished else "interrupted"


def _prefixes(names: Collection[str]) -> set[str]:
    """Return the full names and all their beginnings: `train`, `train.loss`."""
    prefixes = set()
    for name in names:
        full_name = SHORT.get(name, name)
        while full_name:
            prefixes.add(full_name)
            full_name = full_name.rpartition(".")[0]
    return prefixes


def _add_parameters(
    row: Row,
    stage: str,
    parameters: dict,
    prefixes: set[str] | None,
):
    for name, value in parameters.items():
        full_name = f"{stage}.{name}"
        if name not in HIDDEN_PARAMETERS and (prefixes is None or full_name in prefixes):
            row[full_name] = value


def _add_numbers(
    row: Row,
    name: str,
    value: Any,
    prefixes: set[str] | None,
):
    """Add the numbers and texts in a value by dotted name; of a list its first and last number."""
    if prefixes is not None and name not in prefixes:
        return
    if isinstance(value, dict):
        for part, inner in value.items():
            _add_numbers(row, f"{name}.{part}", inner, prefixes)
    elif isinstance(value, list):
        if value and all(map(is_number, value)):
            row[f"{name}.first"] = value[0]
            row[f"{name}.last"] = value[-1]
    elif isinstance(value, str) or is_number(value):
        row[name] = value


def columns(rows: list[Row], names: list[str]) -> list[list[str]]:
    """Return a table of text with its head, without columns that no run has a value for."""
    filled = {"name", "status"}
    for row in rows:
        filled |= {name for name in names if row.get(name) is not None}
    names = [name for name in names if name in filled]
    table = [[printable(name) for name in names]]
    for row in rows:
        table.append([format_cell(name, row.get(name)) for name in names])
    return table


def format_cell(name: str, value: Any) -> str:
    """Return a value as text for people. name: the value's, which decides the form."""
    if value is None:
        return "–"
    # to the minute
    if name == "started":
        return printable(value)[:16].replace("T", " ")
    if name == "seconds":
        return format_duration(value)
    return f"{value:.4g}" if isinstance(value, float) else printable(value)


def align_columns(table: list[list[str]]) -> list[str]:
    """Return a table as lines of text with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for row in table:
        cells = [text.ljust(width) for text, width in zip(row, widths, strict=True)]
        lines.append("  ".join(cells).rstrip())
    return lines
