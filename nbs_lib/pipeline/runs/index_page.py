"""outputs/index.html: a table of all runs, made from their folders alone."""

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

FOLDER = Path(__file__).parent
# pixels of a thumbnail's longer side
THUMBNAIL_SIDE = 96
# the columns and their titles
HEADS = {
    "name": "Run",
    "status": "Status",
    "recipe": "Recipe",
    "started": "Started",
    "seconds": "Duration",
    "train.steps": "Steps",
    "train.rank": "Rank",
    "loss": "Loss",
    "held_out": "Held-out loss",
    "recovered": "Guidance recovered",
    "distance_ratio": "Distance to guided",
    "rate": "Right caption first",
    "compare.time_ratio": "Time, tuned to guided",
}
# the files that a run's row links to, and the links' texts
FILES = {
    "report.html": "report",
    "1_prepare.html": "1",
    "2_train.html": "2",
    "3_compare.html": "3",
    "log.txt": "log",
}
COMPARISON_FILES = ("report.html", "3_compare.html")
# a file in the run's folder: two thousand pictures inside the page would be more than half of it
THUMBNAIL = "thumbnail.png"


def refresh(run: Run | None = None) -> Path:
    """Write the page and return its path. run: one that has just ended, for a new thumbnail."""
    # an index without one picture is still an index
    if run:
        with suppress(OSError):
            make_thumbnail(run)
    runs = [run_row(row) for row in list_rows(HEADS)]
    text = render_page(FOLDER / "index.html.j2", runs=runs, heads=HEADS)
    page = outputs() / "index.html"
    # names that are no UTF-8 arrive as half characters, which cannot be encoded
    write_atomic(page, text.encode(errors="xmlcharrefreplace"))
    return page


def render_page(template: Path, **values: Any) -> str:
    """Return a page from a template, with the style and the script of the index."""
    from ...images.html import inline, template_environment

    style = (FOLDER / "index.css").read_text("utf-8")
    script = (FOLDER / "index.js").read_text("utf-8")
    page = template_environment(template.parent).get_template(template.name)
    functions = {"format_cell": format_cell, "sort_key": sort_key}
    return page.render(**values, **functions, **inline(style, script))


def run_row(row: Row) -> dict:
    """Return a run as the page's template shows it: its values, its files and its picture."""
    folder = outputs() / row["name"]
    outdated = "compare" in row.get("outdated", "")
    # bytes, because a folder's name need not be UTF-8
    url = quote(os.fsencode(row["name"]))
    # isfile, because a link to itself is no file
    existing = {entry.name for entry in scan_folder(folder) if os.path.isfile(entry.path)}
    files = []
    for file, word in FILES.items():
        if file in existing:
            if outdated and file in COMPARISON_FILES:
                word = f"{word}, {OUT_OF_DATE}"
            files.append({"url": f"{url}/{file}", "word": word})
    # an outdated picture shows a result that the run no longer has
    has_picture = not outdated and _has_thumbnail(Run(folder))
    return {"row": row, "files": files, "picture": f"{url}/{THUMBNAIL}" if has_picture else None}


def sort_key(value: Any) -> str:
    """Return the text that the page's script sorts a column by."""
    # the text of a cell is rounded, so the script sorts by this one
    return "" if value is None else printable(value)


def _has_thumbnail(run: Run) -> bool:
    """Return True if a run has a thumbnail, after making one if it is missing or no small PNG."""
    if is_small_png(run.thumbnail, THUMBNAIL_SIDE):
        return True
    with suppress(OSError):
        make_thumbnail(run)
    return is_small_png(run.thumbnail, THUMBNAIL_SIDE)


def make_thumbnail(run: Run):
    """Write thumbnail.png from the first tuned picture, unless there is no readable one."""
    pictures = sorted((run.compare / "pictures").glob("*_tuned.png"))
    picture = open_picture(pictures[0]) if pictures else None
    if picture:
        picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
        file = BytesIO()
        picture.save(file, "PNG")
        write_atomic(run.thumbnail, file.getvalue())
