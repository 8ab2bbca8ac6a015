"""A run in words: what was asked for, what became of it, where its files are."""

from ...config import PLACE, STAGES
from ...config.validation import as_parameters
from ...run.out_of_date import outdated_stages
from ...run.run import Run
from ..paths import outputs
from ..progress import format_duration
from .table import SHORT, format_cell, run_values, status


def describe_run(run: Run) -> list[str]:
    """Lines of text. Errors: RunError for a damaged record."""
    record, values = run.read(), run_values(run)
    asked, past = record.get("asked", {}), outdated_stages(record)
    lines = [
        f"{run.name}: {status(run, record, past)}"
        + (f", of the recipe {asked['recipe']}" if asked.get("recipe") else "")
    ]
    for stage in STAGES:
        known = record.get("stages", {}).get(stage)
        given = (known or {}).get("parameters") or asked.get(stage) or {}
        of = (
            f", out of date: it rests on another {past[stage]} than the last one"
            if stage in past
            else ""
        )
        lines.append(f"{stage}: {_became(known)}{of}")
        lines += [f"    {name} = {value!r}" for name, value in _own(stage, given).items()]
        if known and known.get("error"):
            lines += [f"    {line}" for line in known["error"].splitlines()]
    numbers = {name: values[name] for name in SHORT if name in values}
    lines += [f"{name}: {format_cell(name, value)}" for name, value in numbers.items()]
    lines += [f"{name}: {path}" for name, path in _files(run, past).items()]
    if status(run, record, past) in ("failed", "interrupted"):
        lines.append(f"go on with it: onepass resume {run.name}")
    return lines


def _became(known: dict | None) -> str:
    if not known:
        return "not begun"
    took = f", {format_duration(known['seconds'])}" if "seconds" in known else ""
    return f"{known.get('status', 'unknown')}{took}, begun {format_cell('started', known.get('started'))}"


def _own(stage: str, given: dict) -> dict:
    """The parameters that are not the defaults."""
    usual = as_parameters(STAGES[stage]())
    return {
        name: value
        for name, value in given.items()
        if name not in PLACE and value != usual.get(name)
    }


def _files(run: Run, past: dict[str, str]) -> dict[str, str]:
    places = {"report": run.report, "adapter": run.adapter, "model": run.model, "log": run.log}
    pages = {f"{stage}, as it ran": run.notebook(stage).with_suffix(".html") for stage in STAGES}
    found = {name: path for name, path in (places | pages).items() if path.exists()}
    if "compare" in past and "report" in found:
        found["report, out of date"] = found.pop("report")
    base = outputs().parent
    return {
        name: str(path.relative_to(base) if path.is_relative_to(base) else path)
        for name, path in found.items()
    }
