"""The tables of `0_start.ipynb`: what has been run, and what there is to run."""

import os
from typing import Any

from markupsafe import Markup

from ..images.html import data_url, html_table
from .paths import outputs
from .recipes import find_recipe, recipe_description, recipe_names
from .runs.index_page import HEADS, THUMBNAIL, run_row
from .runs.table import format_cell, list_rows

MAX_RUNS = 20
# The columns of the index of runs that fit beside a picture.
SHOWN = ("status", "recipe", "started", "seconds", "train.steps", "held_out", "recovered")
NO_RUNS = "<p>Nothing has been run yet. Open <code>1_prepare.ipynb</code>, and run all of it.</p>"
PICTURE = Markup('<img src="{}" alt="A picture of this run" width="64">')
LINK = Markup('<a href="{}/{}" target="_blank">{}</a>')


def runs_table() -> str:
    """Return the newest runs in outputs/, with a picture and links each, as an HTML table."""
    rows = list_rows(HEADS)
    if not rows:
        return NO_RUNS
    rows.sort(key=lambda row: str(row.get("started") or ""), reverse=True)
    newest = rows[:MAX_RUNS]
    note = f"{len(rows)} run{'s' * (len(rows) > 1)}"
    if len(rows) > MAX_RUNS:
        note += f", the {MAX_RUNS} newest; outputs/index.html has all of them"
    titles = ["", HEADS["name"], *(HEADS[name] for name in SHOWN), "Open"]
    return html_table(note, titles, [_run_cells(run_row(row)) for row in newest])


def _run_cells(run: dict[str, Any]) -> list[str]:
    row = run["row"]
    picture = ""
    # inside the page, because an HTML file elsewhere would not find it
    if run["picture"]:
        content = (outputs() / row["name"] / THUMBNAIL).read_bytes()
        picture = PICTURE.format(data_url(content))
    # a notebook works in its own folder
    folder = os.path.relpath(outputs())
    links = [LINK.format(folder, file["url"], file["word"]) for file in run["files"]]
    values = [format_cell(name, row.get(name)) for name in SHOWN]
    return [picture, format_cell("name", row["name"]), *values, Markup(" · ").join(links)]


def recipes_table() -> str:
    """Return the recipes, and what each is for, as an HTML table."""
    rows = []
    for name in recipe_names():
        command = Markup("<code>onepass run {}</code>").format(name)
        rows.append((command, recipe_description(find_recipe(name))))
    return html_table("", ("recipe", "what it is for"), rows)
