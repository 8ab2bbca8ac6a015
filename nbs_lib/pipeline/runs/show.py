"""A run in words: its parameters, its results, and where its files are."""

from ...config import STAGES
from ...config.validation import as_parameters
from ...run.out_of_date import outdated_stages
from ...run.run import Run
from ..paths import outputs
from ..progress import format_duration
from ..recipes import recipe_names, result_parameters
from .table import SHORT, finished_stages, format_cell, run_values, status


def describe_run(run: Run) -> list[str]:
    """Return lines of text about a run. Errors: RunError for a damaged record."""
    record = run.read()
    values = run_values(run)
    request = record.get("asked", {})
    outdated = outdated_stages(record)
    state = status(run, record, outdated)
    recipe = f", of the recipe {request['recipe']}" if request.get("recipe") else ""
    lines = [f"{run.name}: {state}{recipe}"]
    for stage in STAGES:
        fields = record.get("stages", {}).get(stage, {})
        parameters = fields.get("parameters") or request.get(stage) or {}
        lines += _describe_stage(stage, fields, parameters, outdated)
    for name in SHORT:
        if name in values:
            lines.append(f"{name}: {format_cell(name, values[name])}")
    lines += [f"{name}: {path}" for name, path in _files(run, outdated).items()]
    # the next step is said only if there is one
    if state in ("failed", "interrupted"):
        lines.append(f"go on with it: onepass resume {run.name}")
    return lines


def _describe_stage(
    stage: str,
    fields: dict,
    parameters: dict,
    outdated: dict[str, str],
) -> list[str]:
    """Return a line about a stage, its parameters that are no defaults, and its error."""
    line = f"{stage}: {_describe_state(fields)}"
    if stage in outdated:
        line += f", out of date: it rests on another {outdated[stage]} than the last one"
    # the record may be of an older version with other parameters
    defaults = as_parameters(STAGES[stage]())
    lines = [line]
    for name, value in result_parameters(parameters).items():
        if value != defaults.get(name):
            lines.append(f"    {name} = {value!r}")
    if fields.get("weights_source"):
        lines.append(f"    weights {fields['weights_source']}")
    error = fields.get("error") or ""
    return lines + [f"    {text}" for text in error.splitlines()]


def _describe_state(fields: dict) -> str:
    if not fields:
        return "not begun"
    # a stage that is running has none yet
    duration = f", {format_duration(fields['seconds'])}" if "seconds" in fields else ""
    started = format_cell("started", fields.get("started"))
    return f"{fields.get('status', 'unknown')}{duration}, begun {started}"


def _files(run: Run, outdated: dict[str, str]) -> dict[str, str]:
    report = "report, out of date" if "compare" in outdated else "report"
    paths = {report: run.report, "adapter": run.adapter, "model": run.model, "log": run.log}
    for stage in STAGES:
        paths[f"{stage}, as it ran"] = run.notebook(stage).with_suffix(".html")
    # short paths, as people type them in the project
    project = outputs().parent
    files = {}
    for name, path in paths.items():
        if path.exists():
            inside = path.is_relative_to(project)
            files[name] = str(path.relative_to(project) if inside else path)
    return files


def next_steps(run: Run, onepass: str) -> list[str]:
    """Return lines that say what to open and what to try after a stage.

    onepass: the command, as it was called
    """
    record = run.read()
    recipe = record.get("asked", {}).get("recipe")
    # only the name of a recipe's file is recorded
    recipe = recipe if recipe in recipe_names() else "RECIPE"
    finished = finished_stages(record)
    files = _files(run, {})
    page = files.get(f"{finished[-1]}, as it ran") if finished else None
    if len(finished) < len(STAGES):
        following = list(STAGES)[len(finished)]
        named = recipe if run.name == recipe else f"{recipe} --name {run.name}"
        steps = [f"next: {onepass} {following} {named}"]
        return [f"open: {page}", *steps] if page else steps
    page = files.get("report", page)
    lines = [
        f"open: {page} in a browser; outputs/index.html lists all runs",
        f"try:  {onepass} lab: in playground.ipynb this adapter draws your own prompts",
    ]
    if record["stages"]["train"].get("parameters", {}).get("objective") == "finetune":
        prompts = "-p 'compare.prompts=[YOUR PROMPT]'"
        return [*lines, f"      the same command with {prompts}: other prompts, no new training"]
    other = f"{run.name}-rank-4"
    return [
        *lines,
        f"      {onepass} run {recipe} -p train.rank=4 --name {other}, then "
        f"{onepass} diff {run.name} {other}",
        f"      {onepass} run own-images -p prepare.source=FOLDER: your own pictures",
    ]
