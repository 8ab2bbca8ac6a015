"""Commands that look: list, show, diff, recipes, index."""

from dataclasses import asdict
from typing import Annotated

import typer

from . import AsJson, RunName, app, one_sentence, tell


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
    from ..pipeline.listing import COLUMNS, aligned, chosen, columns, resolve, rows

    with one_sentence():
        found = chosen(rows(None if where or sort or as_json else COLUMNS), pattern, where or [], sort)
        by = resolve(sort.removeprefix("-"), sorted({name for each in found for name in each}), "--sort") if sort else ""
        heads = [*COLUMNS, *([by] if by and by not in COLUMNS else [])]
        tell(found, aligned(columns(found, heads)) if found else ["no runs"], as_json)


@app.command()
def show(run: RunName, as_json: AsJson = False):
    """Show a run: its status, what was asked for, what it came to, and where its files are."""
    from ..pipeline.listing import row
    from ..pipeline.places import find_run
    from ..pipeline.showing import told

    with one_sentence():
        found = find_run(run)
        tell(found.read() | {"values": row(found)}, told(found), as_json)


@app.command()
def diff(first: RunName, second: RunName, as_json: AsJson = False):
    """Compare two runs: parameters, versions, numbers, pictures."""
    from ..pipeline.differ import difference, in_words
    from ..pipeline.places import find_run

    with one_sentence():
        runs = find_run(first), find_run(second)
        found = difference(*runs)
        tell(asdict(found) | {"same": found.same}, in_words(*runs, found), as_json)


@app.command()
def recipes(as_json: AsJson = False):
    """List the recipes, and what each is for."""
    from ..pipeline.listing import aligned
    from ..pipeline.recipes import described, find_recipe, recipe_names

    with one_sentence():
        told = {name: described(find_recipe(name)) for name in recipe_names()}
        tell([{"name": name, "about": said} for name, said in told.items()], aligned(list(map(list, told.items()))), as_json)


@app.command()
def index(as_json: AsJson = False):
    """Write outputs/index.html, the table of all runs, anew from their folders."""
    from ..pipeline.index import refresh

    with one_sentence():
        page = refresh()
        tell({"page": str(page)}, [f"index: {page}"], as_json)
