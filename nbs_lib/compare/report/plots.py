"""Numbers drawn: rates as bars, quality against cost, the dial. Drawn with matplotlib."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox

from ...images.style import CONTENDER_COLOURS, INK, RULE, SOFT, contender_colour

PLACES = [
    (down, side)
    for down in (0, 1, -1, 1.9, -1.9, 2.8, -2.8, 3.7, 4.6, 5.5, 6.4, 7.3)
    for side in (1, -1, 0)
    if down or side
]
"""Where a label may stand beside its point: lines below it, and to the right, to the left or under it; the best ones first."""
DOT, RING = 6.8, 6.0  # points across a dot, and more for each that lies around it
BEHIND = {
    "facecolor": "white",
    "edgecolor": "none",
    "pad": 0.5,
}  # a text that others would run into


def bars(rates: dict[str, dict[str, float]], count: int, nfe: dict[str, float]) -> Figure:
    """How often the right caption comes first, by contender, with 95 % intervals. rates: name -> rate, low, high."""
    figure = Figure(
        (7.2, 0.85 + 0.62 * len(rates)), dpi=144, layout="constrained", facecolor="white"
    )
    axes = figure.subplots()
    names = list(rates)
    for y, name in enumerate(names):
        told = rates[name]
        axes.barh(y, told["rate"], color=contender_colour(name), height=0.58, zorder=2)
        axes.plot(
            (told["low"], told["high"]),
            (y, y),
            color=INK,
            linewidth=1.4,
            marker="|",
            markersize=9,
            zorder=3,
        )
        axes.text(
            max(told["high"], told["rate"]) + 0.015,
            y,
            f"{100 * told['rate']:.0f} %",
            va="center",
            color=INK,
            fontsize=11,
        )
    axes.axvline(1 / 16, color=SOFT, linewidth=1, linestyle=(0, (3, 3)), zorder=1)
    axes.text(1 / 16, -0.52, " chance", color=SOFT, fontsize=8, va="bottom", zorder=4, bbox=BEHIND)
    axes.set_yticks(
        range(len(names)), [f"{name}\n{nfe[name]:g} NFE" for name in names], fontsize=10, color=INK
    )
    axes.set_xticks(
        np.arange(0, 1.01, 0.25),
        [f"{tick:.0f} %" for tick in np.arange(0, 101, 25)],
        fontsize=9,
        color=SOFT,
    )
    axes.set(xlim=(0, 1.12), ylim=(len(names) - 0.45, -0.75))
    axes.set_title(
        f"Right caption first of 16, {count} held-out captions", loc="left", fontsize=11, color=INK
    )
    axes.grid(axis="x", color=RULE, zorder=0)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def frontier(quality: dict[str, float], costs: dict[str, dict[str, float]], rates: bool) -> Figure:
    """Quality against NFE, a point for each contender; the line joins those that none beats in both.

    quality: by contender: the rate of the right caption first, or, without rates, the similarity (SSIM) to guided's pictures.
    Contenders at the same point are rings around one another.
    """
    figure = Figure((7.2, 3.6), dpi=144, layout="constrained", facecolor="white")
    axes = figure.subplots()
    points = sorted((costs[name]["nfe"], value, name) for name, value in quality.items())
    best = [
        point
        for point in points
        if not any(
            n <= point[0] and q > point[1] or n < point[0] and q >= point[1] for n, q, _ in points
        )
    ]
    [line] = axes.plot(
        [n for n, _, _ in best], [q for _, q, _ in best], color=RULE, linewidth=2, zorder=1
    )
    axes.margins(0.18)
    sizes = [
        DOT + RING * sum(other[:2] == point[:2] for other in points[:i])
        for i, point in enumerate(points)
    ]
    for (nfe, value, name), size in reversed(
        list(zip(points, sizes, strict=True))
    ):  # the small ones over the large ones
        axes.scatter(
            nfe,
            value,
            color=contender_colour(name),
            s=size**2,
            zorder=3,
            edgecolors="white",
            linewidths=0.8,
        )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    if rates:
        low, high = axes.get_ylim()
        axes.set_yticks([tick for tick in axes.get_yticks() if max(0, low) <= tick <= min(1, high)])
        axes.yaxis.set_major_formatter(lambda tick, _: f"{100 * tick:.4g} %")
    _label(
        axes,
        [(nfe, value, f"{name}, {costs[name]['seconds']:.3g} s") for nfe, value, name in points],
        max(sizes),
        line,
    )
    axes.set_xlabel("UNet evaluations for a picture (NFE)", fontsize=9, color=SOFT)
    title = (
        "Right caption first of 16, by cost"
        if rates
        else "Similarity to guided's pictures (SSIM), by cost"
    )
    axes.set_title(title, loc="left", fontsize=11, color=INK)
    axes.grid(color=RULE, zorder=0)
    axes.tick_params(length=0, labelsize=9, labelcolor=SOFT)
    axes.spines[:].set_visible(False)
    return figure


def _label(axes: Axes, points: list[tuple[float, float, str]], size: float, line: Line2D):
    """A label near each point: where it is over no other point or label nor the line, the nearest such place, and within the
    plot. size: points across the largest point."""
    figure = axes.figure
    figure.draw_without_rendering()  # the limits are known from here on
    plot = axes.get_window_extent()
    dots, wide = (
        axes.transData.transform([(x, y) for x, y, _ in points]),
        size * figure.dpi / 72 + 6,
    )  # pixels
    taken = [Bbox.from_bounds(x - wide / 2, y - wide / 2, wide, wide) for x, y in dots]
    joined = Path(axes.transData.transform(line.get_xydata()))
    for x, y, text in sorted(points, key=lambda each: (-each[1], each[0])):
        label = axes.annotate(
            text,
            (x, y),
            (0, 0),
            textcoords="offset points",
            fontsize=8.5,
            color=INK,
            va="center",
            zorder=4,
        )
        for down, side in PLACES:
            label.set(
                position=((size / 2 + 4.6) * side, -13 * down),
                ha={1: "left", -1: "right", 0: "center"}[side],
            )
            box = label.get_window_extent()
            inside = plot.x0 <= box.x0 and box.x1 <= plot.x1
            if (
                inside
                and not joined.intersects_bbox(box.padded(4), False)
                and not any(box.overlaps(other) for other in taken)
            ):
                break
        taken.append(box)


def dial(told: dict[str, Any], w_train: float) -> Figure:
    """The nearest w of each λ, with its interval, beside what is to be expected. told: see `dial.measured_dial`."""
    figure = Figure((7.2, 3.8), dpi=144, layout="constrained", facecolor="white")
    axes = figure.subplots()
    turns = told["turns"]
    scales = np.array([turn["adapter_scale"] for turn in turns])
    line = np.array([min(0.0, scales.min()), scales.max()])
    axes.plot(
        line,
        1 + line * (w_train - 1),
        color=SOFT,
        linewidth=1.2,
        linestyle=(0, (4, 3)),
        label="1 + λ (w_train − 1)",
    )
    found = np.array(
        [turn["w"] for turn in turns], float
    )  # none where it lies beyond what was tried
    axes.plot(
        scales, found, color=CONTENDER_COLOURS["tuned"], linewidth=2, marker="o", label="measured"
    )
    for turn in turns:
        if turn["low"] is not None:
            axes.plot(
                [turn["adapter_scale"]] * 2,
                [turn["low"], turn["high"]],
                color=CONTENDER_COLOURS["tuned"],
                linewidth=1.2,
            )
    axes.set_xlabel("adapter scale λ", fontsize=9, color=SOFT)
    axes.set_ylabel("nearest guidance scale w", fontsize=9, color=SOFT)
    axes.set_title(
        "The dial: the guidance that an adapter scale amounts to",
        loc="left",
        fontsize=11,
        color=INK,
    )
    axes.legend(frameon=False, fontsize=9)
    axes.grid(color=RULE, zorder=0)
    axes.tick_params(length=0, labelsize=9, labelcolor=SOFT)
    axes.spines[:].set_visible(False)
    return figure
