"""outputs/index.html: a table of all runs, made again from their folders alone."""

import os
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ...files import scan_folder, write_atomic
from ...run.run import Run
from ...run.terminal_text import printable
from ..paths import outputs
from .pictures import is_small_png, open_picture
from .table import OUT_OF_DATE, Row, format_cell, list_rows

HERE = Path(__file__).parent
SIDE = 96  # pixels of a thumbnail's longer side
SHOWN = {
    "name": "Run", "status": "Status", "recipe": "Recipe", "started": "Started", "seconds": "Duration",
    "train.steps": "Steps", "train.rank": "Rank", "loss": "Loss", "held_out": "Held-out loss",
    "recovered": "Guidance recovered", "rate": "Right caption first", "compare.time_ratio": "Time, tuned to guided",
}  # fmt: skip
FILES = {
    "report.html": "report",
    "1_prepare.html": "1",
    "2_train.html": "2",
    "3_compare.html": "3",
    "log.txt": "log",
}
COMPARED = ("report.html", "3_compare.html")
THUMBNAIL = "thumbnail.png"
"""Beside the page, in the run's folder: two thousand pictures in the page would be more than half of it."""


def refresh(run: Run | None = None) -> Path:
    """Write the page; the page. run: one that has just ended, whose thumbnail is made."""
    if run:
        with suppress(OSError):
            make_thumbnail(run)
    page = outputs() / "index.html"
    text = render_page(
        HERE / "index.html.j2", runs=[run_row(each) for each in list_rows(SHOWN)], heads=SHOWN
    )
    write_atomic(
        page, text.encode(errors="xmlcharrefreplace")
    )  # half characters, of names that are no UTF-8
    return page


def render_page(template: Path, **values: Any) -> str:
    """Return a page of ours from a template, with the style and script of the index."""
    from ...images.html import inline, template_environment

    style = (HERE / "index.css").read_text("utf-8")
    script = (HERE / "index.js").read_text("utf-8")
    page = template_environment(template.parent).get_template(template.name)
    return page.render(**values, **inline(style, script))


def run_row(row: Row) -> dict[str, Any]:
    """A run as the page shows it: of each column the text and what it is ordered by; its picture and its files.

    What is out of date says so, and the picture is left out: it is not of what the run has now.
    """
    folder, past = outputs() / row["name"], "compare" in row.get("outdated", "")
    cells = [
        {"name": name, "text": format_cell(name, row.get(name)), "by": _by(row.get(name))}
        for name in SHOWN
    ]
    url = quote(os.fsencode(row["name"]))
    there = {
        each.name for each in scan_folder(folder) if os.path.isfile(each.path)
    }  # a link to itself is none
    files = [
        {
            "url": f"{url}/{file}",
            "word": f"{word}, {OUT_OF_DATE}" if past and file in COMPARED else word,
        }
        for file, word in FILES.items()
        if file in there
    ]
    picture = f"{url}/{THUMBNAIL}" if not past and _has_thumbnail(Run(folder)) else None
    return {
        "cells": cells,
        "files": files,
        "picture": picture,
        "status": row["status"].replace(" ", "-"),
    }


def _by(value: Any) -> str:
    return "" if value is None else printable(value)


def _has_thumbnail(run: Run) -> bool:
    """Whether a run has a small picture, which is made where there is none that can be shown."""
    if is_small_png(run.thumbnail, SIDE):
        return True
    with suppress(OSError):
        make_thumbnail(run)
    return is_small_png(run.thumbnail, SIDE)


def make_thumbnail(run: Run):
    """thumbnail.png of the first tuned picture; none where there is no picture that can be read."""
    pictures = sorted((run.compare / "pictures").glob("*_tuned.png"))
    if not pictures:
        return
    if small := open_picture(pictures[0]):
        small.thumbnail((SIDE, SIDE))
        small.save(buffer := BytesIO(), "PNG")
        write_atomic(run.thumbnail, buffer.getvalue())
