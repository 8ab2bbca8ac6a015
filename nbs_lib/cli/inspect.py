"""Commands that look: list, show, diff, recipes, index, doctor, lab."""

from dataclasses import asdict
from typing import Annotated

import typer

from .app import AsJson, RunName, app, echo, end, one_sentence, tell


@app.command("list")
def list_runs(
    pattern: Annotated[str, typer.Argument(help="Names to list, e.g. 'demo*'; all if left out.")] = "",
    where: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Only runs with this value, e.g. status=failed, train.rank=8, 'loss<0.1'."),
    ] = None,
    sort: Annotated[str, typer.Option(metavar="NAME", help="Smallest first: loss; largest first: --sort=-rate.")] = "",
    as_json: AsJson = False,
):
    """List the runs of outputs/."""
    from ..pipeline.runs.table import COLUMNS, aligned, chosen, columns, resolve, rows

    with one_sentence():
        found = chosen(rows(None if where or sort or as_json else COLUMNS), pattern, where or [], sort)
        by = resolve(sort.removeprefix("-"), sorted({name for each in found for name in each}), "--sort") if sort else ""
        heads = [*COLUMNS, *([by] if by and by not in COLUMNS else [])]
        tell(found, aligned(columns(found, heads)) if found else ["no runs"], as_json)


@app.command()
def show(run: RunName, as_json: AsJson = False):
    """Show a run: its status, what was asked for, what it came to, and where its files are."""
    from ..pipeline.paths import find_run
    from ..pipeline.runs.show import told
    from ..pipeline.runs.table import row

    with one_sentence():
        found = find_run(run)
        tell(found.read() | {"values": row(found)}, told(found), as_json)


@app.command()
def diff(first: RunName, second: RunName, as_json: AsJson = False):
    """Compare two runs: parameters, versions, numbers, pictures."""
    from ..pipeline.paths import find_run
    from ..pipeline.runs.diff import difference, in_words

    with one_sentence():
        runs = find_run(first), find_run(second)
        found = difference(*runs)
        tell(asdict(found) | {"same": found.same}, in_words(*runs, found), as_json)


@app.command()
def recipes(as_json: AsJson = False):
    """List the recipes, and what each is for."""
    from ..pipeline.recipes import described, find_recipe, recipe_names
    from ..pipeline.runs.table import aligned

    with one_sentence():
        told = {name: described(find_recipe(name)) for name in recipe_names()}
        tell([{"name": name, "about": said} for name, said in told.items()], aligned(list(map(list, told.items()))), as_json)


@app.command()
def index(as_json: AsJson = False):
    """Write outputs/index.html, the table of all runs, anew from their folders."""
    from ..pipeline.runs.index_page import refresh

    with one_sentence():
        page = refresh()
        tell({"page": str(page)}, [f"index: {page}"], as_json)


@app.command()
def doctor(as_json: AsJson = False):
    """Look at this machine: what is wrong, and the command that mends it. Status 1 where something is."""
    from .doctor import examine

    found = []
    with one_sentence():
        for each in examine():
            found.append(each)
            if not as_json:
                mend = f"\n{'':8}mend it: {each.mend}" if each.mend else ""
                echo(f"{each.state:6}  {each.what}: {each.found}{mend}")
        if as_json:
            tell([asdict(each) for each in found], [], True)
        if wrong := [each.what for each in found if each.state == "wrong"]:
            end(f"wrong here: {', '.join(wrong)}", 1)


@app.command()
def lab(
    flags: Annotated[list[str] | None, typer.Argument(help="Flags for JupyterLab, after --, e.g. -- --no-browser.")] = None,
):
    """Open JupyterLab on the notebooks, on this machine only."""
    import os
    import sys

    from ..files import ROOT

    with one_sentence():
        os.chdir(ROOT)
        given = ["--ip=127.0.0.1", "--LabApp.default_url=/lab/tree/notebooks", *(flags or [])]
        os.execv(sys.executable, [sys.executable, "-m", "jupyterlab", *given])
