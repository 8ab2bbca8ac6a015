"""Histograms of image sizes, proportions and captions' lengths."""

import math
from collections import Counter
from fractions import Fraction

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ..images.style import CONTRAST, MAIN

BINS = 41  # an odd number, so that squares have the middle bar for themselves
VISIBLE = 100  # ratio of the highest bar to the lowest one that can still be seen beside it
NARROWEST = 1.0  # powers of two to either side of a square that proportions always span
TICKS = ("1:10", "1:4", "1:2", "3:4", "1:1", "4:3", "2:1", "4:1", "10:1")


def size_histograms(sizes: Counter) -> Figure:
    """Draw the sizes and proportions of images. sizes: images by (width, height)."""
    figure = Figure(figsize=(9, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    # Sizes are counted, not listed: a source may have millions of images.
    counts = list(sizes.values())
    sides = [math.sqrt(width * height) for width, height in sizes]
    _histogram(left, sides, counts, None)
    left.set(xlabel="size: square root of width × height, pixels")
    proportions = [math.log2(width / height) for width, height in sizes]
    widest = max(NARROWEST, *map(abs, proportions)) * 1.1
    _histogram(right, proportions, counts, (-widest, widest))
    positions = {}
    for name in TICKS:
        position = math.log2(Fraction(name.replace(":", "/")))
        # Labels next to 1:1 would overlap it if the axis is wide.
        if not position or widest / 8 < abs(position) <= widest:
            positions[name] = position
    # Proportions are compared on a logarithmic axis: 1:2 and 2:1 are as far from a square.
    right.set_xticks(list(positions.values()), list(positions))
    right.set(xlabel="proportions, width : height", xlim=(-widest, widest))
    return figure


def _histogram(
    axes: Axes,
    values: list[float],
    counts: list[int],
    ends: tuple[float, float] | None,
):
    heights = axes.hist(values, BINS, range=ends, weights=counts, color=MAIN)[0]
    axes.set_ylabel("images")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    lowest = min(height for height in heights if height)
    # On a linear axis a few images would not be seen beside many.
    if max(heights) > VISIBLE * lowest:
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.5)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_ylabel("images, logarithmic")


def length_histogram(tokens: Counter, limit: int) -> Figure:
    """Draw how many tokens captions have.

    tokens: captions by their number of tokens.
    limit: tokens that the text encoder reads.
    """
    figure = Figure(figsize=(9, 2.6), layout="constrained")
    axes = figure.subplots()
    axes.bar(list(tokens), list(tokens.values()), width=1.0, color=MAIN)
    axes.axvline(limit + 0.5, color=CONTRAST, linestyle="--")
    # The words stand on the side of the line that has more room.
    on_the_right = limit < max(tokens) / 2
    axes.annotate(
        f"what the text encoder reads: {limit}",
        xy=(limit + 0.5, 0.97),
        xytext=(6 if on_the_right else -6, 0),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        va="top",
        ha="left" if on_the_right else "right",
        color=CONTRAST,
    )
    axes.set_xlabel("tokens of a caption, its beginning and end among them")
    axes.set_ylabel("distinct captions")
    return figure
