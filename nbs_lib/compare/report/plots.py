"""The plots of a comparison: rates as bars, quality against cost, effective guidance."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator, NullLocator
from matplotlib.transforms import Bbox

from ...images.style import CONTENDER_COLOURS, INK, RULE, SOFT, contender_colour

# Positions of a label at its point, the best first: lines below it, and right, left or under.
LABEL_POSITIONS = [
    (lines, side)
    for lines in (0, 1, -1, 1.9, -1.9, 2.8, -2.8, 3.7, 4.6, 5.5, 6.4, 7.3)
    for side in (1, -1, 0)
    if lines or side
]
ALIGNMENTS = {1: "left", -1: "right", 0: "center"}
DOT = 6.8  # points across a dot
WIDE = 8  # times the least NFE from which on the axis of a frontier is logarithmic
RING = 6.0  # points that a dot is wider than the one before it at the same place
LEADER = {"arrowstyle": "-", "color": SOFT, "linewidth": 0.7, "shrinkB": DOT / 2}
# A box behind a text that a bar would run into.
TEXT_BOX = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
TITLE = {"loc": "left", "fontsize": 11, "color": INK}
SMALL = {"fontsize": 9, "color": SOFT}


@dataclass(frozen=True, order=True)
class Point:
    """A contender on the frontier."""

    nfe: float
    quality: float
    name: str


def _axes(height):
    figure = Figure((7.2, height), dpi=144, layout="constrained", facecolor="white")
    axes = figure.subplots()
    axes.spines[:].set_visible(False)
    return figure, axes


def rate_bars(rates: dict[str, dict], count: int, nfe: dict[str, float]) -> Figure:
    """Return a bar of each contender's caption accuracy, with its 95 % interval.

    rates: rate, low and high by contender, 0 to 1
    count: number of captions
    nfe: denoiser evaluations by contender
    """
    figure, axes = _axes(0.85 + 0.62 * len(rates))
    for y, (name, row) in enumerate(rates.items()):
        _bar(axes, y, contender_colour(name), row)
    # one caption of 16 is right by chance
    axes.axvline(1 / 16, color=SOFT, linewidth=1, linestyle=(0, (3, 3)), zorder=1)
    axes.text(
        1 / 16, -0.52, " chance", color=SOFT, fontsize=8, va="bottom", zorder=4, bbox=TEXT_BOX
    )
    names = [f"{name}\n{nfe[name]:g} NFE" for name in rates]
    axes.set_yticks(range(len(names)), names, fontsize=10, color=INK)
    ticks = np.arange(0, 1.01, 0.25)
    axes.set_xticks(ticks, [f"{100 * tick:.0f} %" for tick in ticks], **SMALL)
    # room for the percents at the right; the first contender is at the top
    axes.set(xlim=(0, 1.12), ylim=(len(names) - 0.45, -0.75))
    axes.set_title(f"Right caption first of 16, {count} held-out captions", **TITLE)
    axes.grid(axis="x", color=RULE, zorder=0)
    axes.tick_params(length=0)
    return figure


def _bar(axes, y, colour, row):
    rate = row["rate"]
    axes.barh(y, rate, color=colour, height=0.58, zorder=2)
    axes.plot(
        (row["low"], row["high"]),
        (y, y),
        color=INK,
        linewidth=1.4,
        marker="|",
        markersize=9,
        zorder=3,
    )
    # beside the interval, or its line would cross the text
    x = max(row["high"], rate) + 0.015
    axes.text(x, y, f"{100 * rate:.0f} %", va="center", color=INK, fontsize=11)


def frontier(quality: dict[str, float], costs: dict[str, dict], rates: bool) -> Figure:
    """Return quality against NFE, a point for each contender, and a line through the best.

    The best are those that no other beats in both.
    quality: by contender, the caption accuracy, or the mean SSIM to guided's pictures if not
        `rates`
    costs: nfe and seconds by contender
    """
    figure, axes = _axes(3.6)
    points = sorted(Point(costs[name]["nfe"], value, name) for name, value in quality.items())
    best = [point for point in points if not any(_beats(other, point) for other in points)]
    x = [point.nfe for point in best]
    y = [point.quality for point in best]
    [line] = axes.plot(x, y, color=RULE, linewidth=2, zorder=1)
    axes.margins(0.18)
    largest = _dots(axes, points)
    # few steps beside many would lie on one line
    if points[-1].nfe >= WIDE * points[0].nfe:
        axes.set_xscale("log")
        axes.set_xticks(sorted({point.nfe for point in points}), minor=False)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter("{x:g}")
    else:
        # NFE are whole numbers, and few of them
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    title = "Similarity to guided's pictures (SSIM), by cost"
    if rates:
        title = "Right caption first of 16, by cost"
        _percent_ticks(axes)
    labels = {point: f"{point.name}, {costs[point.name]['seconds']:.3g} s" for point in points}
    _label(axes, labels, largest, line)
    _finish(axes, title, "Denoiser evaluations for a picture (NFE)")
    return figure


def _beats(a, b):
    cheaper = a.nfe < b.nfe and a.quality >= b.quality
    return cheaper or (a.nfe <= b.nfe and a.quality > b.quality)


def _dots(axes, points):
    """Draw the points, those at one place as rings; return the size of the largest dot."""
    sizes = {}
    n_at = Counter()
    for point in points:
        position = point.nfe, point.quality
        sizes[point] = DOT + RING * n_at[position]
        n_at[position] += 1
    # reversed: the small dots are drawn over the large ones
    for point in reversed(points):
        axes.scatter(
            point.nfe,
            point.quality,
            color=contender_colour(point.name),
            s=sizes[point] ** 2,  # matplotlib takes an area
            zorder=3,
            edgecolors="white",
            linewidths=0.8,
        )
    return max(sizes.values())


def _percent_ticks(axes):
    # the margins reach beyond 0 and 100 %, where no rate is
    low, high = axes.get_ylim()
    ticks = [tick for tick in axes.get_yticks() if max(0, low) <= tick <= min(1, high)]
    axes.set_yticks(ticks)
    axes.yaxis.set_major_formatter(lambda tick, _: f"{100 * tick:.4g} %")


def _finish(axes, title, x_label):
    axes.set_xlabel(x_label, **SMALL)
    axes.set_title(title, **TITLE)
    axes.grid(color=RULE, zorder=0)
    axes.tick_params(length=0, labelsize=9, labelcolor=SOFT)


def _label(axes, labels, size, line):
    """Label each point at the first position that is free and within the plot.

    A position is free if it covers no point, no other label and not the line.
    size: points across the largest dot
    """
    axes.figure.draw_without_rendering()  # the limits of the axes are known only after this
    plot = axes.get_window_extent()
    pixels = size * axes.figure.dpi / 72 + 6
    covered = []
    for point in labels:
        x, y = axes.transData.transform((point.nfe, point.quality))
        covered.append(Bbox.from_bounds(x - pixels / 2, y - pixels / 2, pixels, pixels))
    path = Path(axes.transData.transform(line.get_xydata()))

    def is_free(box):
        # not the height: the layout makes room above and below, not at the sides
        inside = plot.x0 <= box.x0 and box.x1 <= plot.x1
        crossed = path.intersects_bbox(box.padded(4), False)
        return inside and not crossed and not any(box.overlaps(other) for other in covered)

    # from the top, because most positions are below their point
    for point in sorted(labels, key=lambda point: (-point.quality, point.nfe)):
        place = (point.nfe, point.quality)
        label = axes.annotate(
            labels[point],
            place,
            (0, 0),
            textcoords="offset points",
            fontsize=8.5,
            color=INK,
            va="center",
            zorder=4,
        )
        for lines, side in LABEL_POSITIONS:
            label.set(position=((size / 2 + 4.6) * side, -13 * lines), ha=ALIGNMENTS[side])
            box = label.get_window_extent()
            if is_free(box):
                break
        covered.append(box)
        # a label that is not beside its point could be another's
        if lines:
            start = label.get_position()
            axes.annotate("", place, start, textcoords="offset points", arrowprops=LEADER)


def dial(rows: Sequence[dict]) -> Figure:
    """Return the nearest w of each w that was asked for, with its interval, beside the diagonal.

    rows: `turns` of `measure_dial`
    """
    figure, axes = _axes(3.8)
    targets = np.array([row["target"] for row in rows])
    ends = np.array([1.0, targets.max()])
    axes.plot(
        ends, ends, color=SOFT, linewidth=1.2, linestyle=(0, (4, 3)), label="as it was asked for"
    )
    # None becomes NaN, which is a gap: there w lies beyond the scales that were tried
    measured = np.array([row["w"] for row in rows], float)
    colour = CONTENDER_COLOURS["tuned"]
    axes.plot(targets, measured, color=colour, linewidth=2, marker="o", label="measured")
    for row in rows:
        if row["low"] is not None:
            axes.plot([row["target"]] * 2, [row["low"], row["high"]], color=colour, linewidth=1.2)
    axes.set_ylabel("guidance scale w of the pictures", **SMALL)
    axes.legend(frameon=False, fontsize=9)
    _finish(axes, "The dial: guidance in one pass", "guidance scale w that was asked for")
    return figure
