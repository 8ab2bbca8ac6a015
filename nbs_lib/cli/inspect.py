"""Commands that look at runs, recipes and parameters: list, show, diff, params, index, lab.

Each imports its modules when it is called: every command imports this one.
"""

from dataclasses import asdict
from typing import Annotated

import typer

from .app import AsJson, RunName, app, print_result, report_errors

PATTERN_HELP = "Names to list, e.g. 'demo*'; all if left out."
WHERE_HELP = "Only runs with this value, e.g. status=failed, train.rank=8, 'loss<0.1'."
STAGE_HELP = "prepare, train, compare, playground or picturebook."
SORT_HELP = "Smallest first: loss; largest first: --sort=-rate."


@app.command("list")
def list_runs(
    pattern: Annotated[str, typer.Argument(help=PATTERN_HELP)] = "",
    where: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help=WHERE_HELP)] = None,
    sort: Annotated[str, typer.Option(metavar="NAME", help=SORT_HELP)] = "",
    as_json: AsJson = False,
):
    """List the runs of outputs/."""
    from ..pipeline.runs.query import resolve_name, select_rows, value_names
    from ..pipeline.runs.table import COLUMNS, align_columns, columns, list_rows

    with report_errors():
        # all values are read only if one of them may be asked for: reading few is much quicker
        rows = list_rows(None if where or sort or as_json else COLUMNS)
        rows = select_rows(rows, pattern, where or [], sort)
        names = list(COLUMNS)
        # the value that the rows are sorted by is shown, whatever it is
        if sort:
            name = resolve_name(sort.removeprefix("-"), value_names(rows), "--sort")
            if name not in names:
                names.append(name)
        lines = align_columns(columns(rows, names)) if rows else ["no runs"]
        print_result(rows, lines, as_json)


@app.command()
def show(run: RunName, as_json: AsJson = False):
    """Show a run: its status, its parameters, its results, and where its files are."""
    from ..pipeline.paths import find_run
    from ..pipeline.runs.show import describe_run
    from ..pipeline.runs.table import run_values

    with report_errors():
        existing = find_run(run)
        # the record as it is stored, and the values that --where and --sort know
        record = existing.read() | {"values": run_values(existing)}
        print_result(record, describe_run(existing), as_json)


@app.command()
def diff(first: RunName, second: RunName, as_json: AsJson = False):
    """Compare two runs: parameters, versions, numbers, pictures."""
    from ..pipeline.paths import find_run
    from ..pipeline.runs.diff import describe_difference, difference

    with report_errors():
        # both are looked up before one is read
        runs = (find_run(first), find_run(second))
        result = difference(*runs)
        lines = describe_difference(*runs, result)
        print_result(asdict(result) | {"same": result.same}, lines, as_json)


@app.command()
def recipes(as_json: AsJson = False):
    """List the recipes, and what each is for."""
    from ..pipeline.recipes import find_recipe, recipe_description, recipe_names
    from ..pipeline.runs.table import align_columns

    with report_errors():
        table = [[name, recipe_description(find_recipe(name))] for name in recipe_names()]
        value = [{"name": name, "about": description} for name, description in table]
        print_result(value, align_columns(table), as_json)


@app.command()
def params(
    stage: Annotated[str, typer.Argument(help=STAGE_HELP)],
    as_json: AsJson = False,
):
    """Print the parameters of a stage: name, default, meaning, allowed values."""
    from ..config import NOTEBOOKS
    from ..config.fields import describe
    from ..config.tables import reference_table
    from ..config.validation import ParameterError

    with report_errors():
        stages = {stem.lstrip("123_"): cls for stem, cls in NOTEBOOKS.items()}
        if stage not in stages:
            raise ParameterError(f"params: given {stage!r}; allowed is one of {', '.join(stages)}")
        parameters = describe(stages[stage])
        rows = [asdict(parameter) for parameter in parameters]
        print_result(rows, reference_table(parameters).splitlines(), as_json)


@app.command()
def index(as_json: AsJson = False):
    """Write outputs/index.html, the table of all runs, again from their folders."""
    from ..pipeline.runs.index_page import refresh

    with report_errors():
        page = refresh()
        print_result({"page": str(page)}, [f"index: {page}"], as_json)


@app.command()
def lab(
    flags: Annotated[
        list[str] | None,
        typer.Argument(help="Flags for JupyterLab, after --, e.g. -- --no-browser."),
    ] = None,
):
    """Open JupyterLab on copies of the notebooks in outputs/lab, on this machine only."""
    import os
    import sys

    from ..files import ROOT
    from ..pipeline.paths import copy_notebooks

    with report_errors():
        start = copy_notebooks().relative_to(ROOT) / "0_start.ipynb"
        # the notebooks find the library from there
        os.chdir(ROOT)
        options = ["--ip=127.0.0.1", f"--LabApp.default_url=/lab/tree/{start}", *(flags or [])]
        # exec, so that Ctrl-C goes to JupyterLab alone
        os.execv(sys.executable, [sys.executable, "-m", "jupyterlab", *options])
