"""The plot of a sweep, and a page that holds the plot and the table."""

from io import BytesIO
from pathlib import Path
from typing import Any

from ...files import write_atomic
from ...images.html import data_url
from ...run.record import is_number
from ..runs.index_page import render_page

TEMPLATE = Path(__file__).with_name("sweep.html.j2")


def write_pages(sweep: Any):
    """Write sweep.png and sweep.html into the sweep's folder."""
    picture = plot(sweep)
    write_atomic(sweep.folder / "sweep.png", picture)
    heads = {f"swept {name}": name for name in sweep.swept}
    heads |= {name: name for name in ("status", sweep.metric, "seconds")}
    page = render_page(
        TEMPLATE,
        name=sweep.folder.name,
        recipe=sweep.recipe,
        metric=sweep.metric,
        best=sweep.best,
        heads=heads,
        rows=sweep.rows,
        plot=data_url(picture),
    )
    write_atomic(sweep.folder / "sweep.html", page)


def plot(sweep: Any) -> bytes:
    """Return a PNG with a plot for each swept parameter.

    A plot shows the metric of every member against the parameter's value, and the means as a line.
    """
    from matplotlib.figure import Figure

    count = len(sweep.swept)
    # without pyplot, which keeps every figure in memory
    figure = Figure(figsize=(5 * count, 3.6), dpi=120, layout="constrained")
    plots = figure.subplots(1, count, squeeze=False)[0]
    finished = [row for row in sweep.rows if is_number(row.get(sweep.metric))]
    for axes, (name, values) in zip(plots, sweep.swept.items(), strict=True):
        # texts are compared, because a list cannot be a dictionary's key
        points = [(str(row[f"swept {name}"]), row[sweep.metric]) for row in finished]
        _plot_parameter(axes, values, points)
        # a name with two $ would be drawn as a formula
        axes.set_xlabel(name, parse_math=False)
        axes.set_ylabel(sweep.metric, parse_math=False)
    file = BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _plot_parameter(axes: Any, values: list, points: list[tuple[str, float]]):
    """Plot the points of one parameter. points: a value as text, and the metric."""
    from ...images.style import MAIN

    # texts get evenly spaced positions
    numeric = all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in values
    )
    positions = {str(value): value if numeric else i for i, value in enumerate(values)}
    groups = {}
    for text, metric in points:
        groups.setdefault(positions[text], []).append(metric)
    for position, metrics in groups.items():
        axes.plot([position] * len(metrics), metrics, "o", color=MAIN, alpha=0.6)
    ordered = sorted(groups)
    means = [sum(groups[position]) / len(groups[position]) for position in ordered]
    axes.plot(ordered, means, color=MAIN)
    if numeric and min(values) > 0 and max(values) >= 20 * min(values):
        # learning rates of 1e-5, 1e-4 and 1e-3 would be one point on a linear axis
        axes.set_xscale("log")
    axes.set_xticks(list(positions.values()), list(positions), parse_math=False)
    # only the swept values are marked
    axes.minorticks_off()
    axes.grid(alpha=0.3)
