"""What a sweep came to, as a plot and as a page that holds the plot and the table."""

from io import BytesIO
from pathlib import Path
from typing import Any

from ...files import write_atomic
from ...images.html import data_url
from ...run.record import is_number
from ...run.terminal_text import printable
from ..runs.index_page import render_page
from ..runs.table import format_cell


def write_pages(sweep: Any):
    """sweep.png and sweep.html in the sweep's folder."""
    picture = plot(sweep)
    write_atomic(sweep.folder / "sweep.png", picture)
    told = {
        "name": sweep.folder.name,
        "recipe": sweep.recipe,
        "metric": sweep.metric,
        "best": sweep.best,
        "heads": [*sweep.swept, "status", sweep.metric, "seconds"],
        "rows": [sweep_row(sweep, each) for each in sweep.rows],
        "plot": data_url(picture),
    }
    write_atomic(
        sweep.folder / "sweep.html", render_page(Path(__file__).with_name("sweep.html.j2"), **told)
    )


def sweep_row(sweep: Any, row: dict[str, Any]) -> dict[str, Any]:
    keys = [*(f"swept {full}" for full in sweep.swept), "status", sweep.metric, "seconds"]
    cells = [
        {
            "text": format_cell(key, row.get(key)),
            "by": "" if row.get(key) is None else printable(row.get(key)),
        }
        for key in keys
    ]
    return {"name": row["name"], "status": row["status"], "cells": cells}


def plot(sweep: Any) -> bytes:
    """A PNG: for each swept parameter the metric of every member against its value, and the means as a line."""
    from matplotlib.figure import Figure

    from ...images.style import MAIN

    figure = Figure(figsize=(5 * len(sweep.swept), 3.6), dpi=120, layout="constrained")
    done = [each for each in sweep.rows if is_number(each.get(sweep.metric))]
    for axes, (full, values) in zip(
        figure.subplots(1, len(sweep.swept), squeeze=False)[0], sweep.swept.items(), strict=True
    ):
        numbers = all(
            isinstance(value, int | float) and not isinstance(value, bool) for value in values
        )
        places = {str(value): value if numbers else place for place, value in enumerate(values)}
        groups: dict[float, list[float]] = {}
        for each in done:
            groups.setdefault(places[str(each[f"swept {full}"])], []).append(each[sweep.metric])
        for place, found in groups.items():
            axes.plot([place] * len(found), found, "o", color=MAIN, alpha=0.6)
        means = sorted((place, sum(found) / len(found)) for place, found in groups.items())
        axes.plot(*(zip(*means, strict=True) if means else ([], [])), color=MAIN)
        if numbers and min(values) > 0 and max(values) >= 20 * min(values):
            axes.set_xscale("log")
        axes.set_xticks(list(places.values()), list(places), parse_math=False)
        axes.minorticks_off()
        axes.set_xlabel(full, parse_math=False)
        axes.set_ylabel(sweep.metric, parse_math=False)
        axes.grid(alpha=0.3)
    figure.savefig(buffer := BytesIO(), format="png")
    return buffer.getvalue()
