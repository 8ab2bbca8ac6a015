"""Commands that look: list, show, diff, recipes, params, index, doctor, lab."""

from dataclasses import asdict
from typing import Annotated

import typer

from .app import AsJson, RunName, app, echo, exit_with, print_result, report_errors


@app.command("list")
def list_runs(
    pattern: Annotated[
        str, typer.Argument(help="Names to list, e.g. 'demo*'; all if left out.")
    ] = "",
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Only runs with this value, e.g. status=failed, train.rank=8, 'loss<0.1'.",
        ),
    ] = None,
    sort: Annotated[
        str, typer.Option(metavar="NAME", help="Smallest first: loss; largest first: --sort=-rate.")
    ] = "",
    as_json: AsJson = False,
):
    """List the runs of outputs/."""
    from ..pipeline.runs.table import (
        COLUMNS,
        align_columns,
        columns,
        list_rows,
        resolve_name,
        select_rows,
    )

    with report_errors():
        found = select_rows(
            list_rows(None if where or sort or as_json else COLUMNS), pattern, where or [], sort
        )
        by = (
            resolve_name(
                sort.removeprefix("-"), sorted({name for each in found for name in each}), "--sort"
            )
            if sort
            else ""
        )
        heads = [*COLUMNS, *([by] if by and by not in COLUMNS else [])]
        print_result(found, align_columns(columns(found, heads)) if found else ["no runs"], as_json)


@app.command()
def show(run: RunName, as_json: AsJson = False):
    """Show a run: its status, what was asked for, what it came to, and where its files are."""
    from ..pipeline.paths import find_run
    from ..pipeline.runs.show import describe_run
    from ..pipeline.runs.table import run_values

    with report_errors():
        found = find_run(run)
        print_result(found.read() | {"values": run_values(found)}, describe_run(found), as_json)


@app.command()
def diff(first: RunName, second: RunName, as_json: AsJson = False):
    """Compare two runs: parameters, versions, numbers, pictures."""
    from ..pipeline.paths import find_run
    from ..pipeline.runs.diff import describe_difference, difference

    with report_errors():
        runs = find_run(first), find_run(second)
        found = difference(*runs)
        print_result(
            asdict(found) | {"same": found.same}, describe_difference(*runs, found), as_json
        )


@app.command()
def recipes(as_json: AsJson = False):
    """List the recipes, and what each is for."""
    from ..pipeline.recipes import find_recipe, recipe_description, recipe_names
    from ..pipeline.runs.table import align_columns

    with report_errors():
        told = {name: recipe_description(find_recipe(name)) for name in recipe_names()}
        print_result(
            [{"name": name, "about": said} for name, said in told.items()],
            align_columns(list(map(list, told.items()))),
            as_json,
        )


@app.command()
def index(as_json: AsJson = False):
    """Write outputs/index.html, the table of all runs, anew from their folders."""
    from ..pipeline.runs.index_page import refresh

    with report_errors():
        page = refresh()
        print_result({"page": str(page)}, [f"index: {page}"], as_json)


@app.command()
def doctor(as_json: AsJson = False):
    """Look at this machine: what is wrong, and the command that mends it. Status 1 where something is."""
    from .doctor import examine

    found = []
    with report_errors():
        for each in examine():
            found.append(each)
            if not as_json:
                mend = f"\n{'':8}mend it: {each.mend}" if each.mend else ""
                echo(f"{each.state:6}  {each.what}: {each.found}{mend}")
        if as_json:
            print_result([asdict(each) for each in found], [], True)
        if wrong := [each.what for each in found if each.state == "wrong"]:
            exit_with(f"wrong here: {', '.join(wrong)}", 1)


@app.command()
def lab(
    flags: Annotated[
        list[str] | None,
        typer.Argument(help="Flags for JupyterLab, after --, e.g. -- --no-browser."),
    ] = None,
):
    """Open JupyterLab on the notebooks, on this machine only."""
    import os
    import sys

    from ..files import ROOT

    with report_errors():
        os.chdir(ROOT)
        given = ["--ip=127.0.0.1", "--LabApp.default_url=/lab/tree/notebooks", *(flags or [])]
        os.execv(sys.executable, [sys.executable, "-m", "jupyterlab", *given])


@app.command()
def params(
    stage: Annotated[
        str, typer.Argument(help="prepare, train, compare, playground or picturebook.")
    ],
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
        print_result(
            [asdict(each) for each in parameters], reference_table(parameters).splitlines(), as_json
        )
