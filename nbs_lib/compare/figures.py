"""The figures of a comparison: the grid of pictures, and the rates as bars."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

COLOURS = {"unguided": "#8a8f98", "guided": "#d98324", "tuned": "#0b5f6b"}
KINDS = {"selective": "#e3b06b", "hybrid": "#5a9aa3"}
INK, SOFT, LINE = "#1c1b1a", "#5f5c58", "#e3e0db"
FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
SIDE = 192  # pixels that a small picture is enlarged to, at most
LARGEST = 256  # pixels that a large picture is reduced to
ACROSS = 5  # pictures in a row
GAP, MARGIN = 8, 28
BEHIND = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # a text that others would run into
LINES = 3  # of a prompt, at most


@dataclass(frozen=True)
class Row:
    """A contender's row of the grid. images: uint8 [n, h, w, 3]; note: a line for each fact under its name."""

    name: str
    images: np.ndarray
    note: str = ""


def grid(rows: Sequence[Row], prompts: Sequence[str], seeds: Sequence[int]) -> Image.Image:
    """Every picture of every contender: a column for each prompt and seed, in bands of labelled rows.

    prompts, seeds: one for each column, the seeds of a prompt side by side. Small pictures keep their pixels square.
    """
    large, small = _font(15, "-Bold"), _font(13)
    pictures = [[enlarged(image) for image in row.images] for row in rows]
    width, height = pictures[0][0].size
    notes = [row.note.splitlines() for row in rows]
    left = MARGIN + round(max(large.getlength(r.name) for r in rows)) + GAP * 2
    left = max(left, MARGIN + round(max((small.getlength(line) for note in notes for line in note), default=0)) + GAP * 2)
    titles = [titled(prompt, seed, len(set(seeds)) > 1, small, width) for prompt, seed in zip(prompts, seeds, strict=True)]
    each = len(set(seeds))
    across = min(len(prompts), ACROSS // each * each or ACROSS)
    bands = [range(first, min(first + across, len(prompts))) for first in range(0, len(prompts), across)]
    heads = [18 * max(len(titles[i]) for i in band) + GAP for band in bands]
    tall = sum(heads) + len(bands) * (len(rows) * (height + GAP) + MARGIN) + MARGIN
    page = Image.new("RGB", (left + across * (width + GAP) - GAP + MARGIN, tall), "white")
    pen, y = ImageDraw.Draw(page), MARGIN
    for band, head in zip(bands, heads, strict=True):
        for column, i in enumerate(band):
            text = titles[i]
            for number, line in enumerate(text):  # titles stand on their pictures
                where = (left + column * (width + GAP), y + head - GAP - 18 * (len(text) - number))
                pen.text(where, line, INK, small)
        y += head
        for row, drawn, note in zip(rows, pictures, notes, strict=True):
            top = y + (height - 22 - 18 * len(note)) // 2
            pen.rectangle((MARGIN - 12, y, MARGIN - 8, y + height - 1), colour(row.name))
            pen.text((MARGIN, top), row.name, INK, large)
            for number, line in enumerate(note):
                pen.text((MARGIN, top + 24 + 18 * number), line, SOFT, small)
            for column, i in enumerate(band):
                page.paste(drawn[i], (left + column * (width + GAP), y))
            y += height + GAP
        y += MARGIN
    return page


def enlarged(image: np.ndarray) -> Image.Image:
    """A picture at the size it is shown: small ones by a whole factor with square pixels, large ones reduced."""
    picture = Image.fromarray(image)
    longest = max(picture.size)
    if longest > LARGEST:
        return picture.resize([max(1, round(side * LARGEST / longest)) for side in picture.size], Image.Resampling.LANCZOS)
    factor = max(1, SIDE // longest)
    return picture.resize([side * factor for side in picture.size], Image.Resampling.NEAREST)


def titled(prompt: str, seed: int, with_seed: bool, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """A prompt in lines that fit the width; the seed on a line of its own where there are several."""
    lines = [""]
    for word in prompt.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    cut = len(lines) > LINES
    lines = [_fitting(line, font, width, cut and i == LINES - 1) for i, line in enumerate(lines[:LINES])]
    return lines + [f"seed {seed}"] if with_seed else lines


def _fitting(line: str, font: ImageFont.FreeTypeFont, width: int, cut: bool) -> str:
    """The line, shortened to the width; with an ellipsis if it is cut here."""
    while line and font.getlength(line + "…" * cut) > width:
        line, cut = line[:-1], True
    return line + "…" * cut


def _font(size: int, weight: str = "") -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(FONTS / f"DejaVuSans{weight}.ttf", size)


def bars(rates: dict[str, dict[str, float]], count: int, nfe: dict[str, float]) -> Figure:
    """How often the right caption comes first, by contender, with 95 % intervals. rates: name -> rate, low, high."""
    figure = Figure((7.2, 0.85 + 0.62 * len(rates)), dpi=144, layout="constrained", facecolor="white")
    axes = figure.subplots()
    names = list(rates)
    for y, name in enumerate(names):
        told = rates[name]
        axes.barh(y, told["rate"], color=colour(name), height=0.58, zorder=2)
        axes.plot((told["low"], told["high"]), (y, y), color=INK, linewidth=1.4, marker="|", markersize=9, zorder=3)
        axes.text(
            max(told["high"], told["rate"]) + 0.015, y, f"{100 * told['rate']:.0f} %", va="center", color=INK, fontsize=11
        )
    axes.axvline(1 / 16, color=SOFT, linewidth=1, linestyle=(0, (3, 3)), zorder=1)
    axes.text(1 / 16, -0.52, " chance", color=SOFT, fontsize=8, va="bottom", zorder=4, bbox=BEHIND)
    axes.set_yticks(range(len(names)), [f"{name}\n{nfe[name]:g} NFE" for name in names], fontsize=10, color=INK)
    axes.set_xticks(np.arange(0, 1.01, 0.25), [f"{tick:.0f} %" for tick in np.arange(0, 101, 25)], fontsize=9, color=SOFT)
    axes.set(xlim=(0, 1.12), ylim=(len(names) - 0.45, -0.75))
    axes.set_title(f"Right caption first of 16, {count} held-out captions", loc="left", fontsize=11, color=INK)
    axes.grid(axis="x", color=LINE, zorder=0)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def frontier(quality: dict[str, float], costs: dict[str, dict[str, float]], rates: bool) -> Figure:
    """Quality against NFE, a point for each contender; the line joins those that none beats in both.

    quality: by contender: the rate of the right caption first, or, without rates, the similarity (SSIM) to guided's pictures.
    """
    figure = Figure((7.2, 3.6), dpi=144, layout="constrained", facecolor="white")
    axes = figure.subplots()
    points = sorted((costs[name]["nfe"], value, name) for name, value in quality.items())
    best = [
        point
        for point in points
        if not any(n <= point[0] and q > point[1] or n < point[0] and q >= point[1] for n, q, _ in points)
    ]
    axes.plot([n for n, _, _ in best], [q for _, q, _ in best], color=LINE, linewidth=2, zorder=1)
    for nfe, value, name in points:
        axes.scatter(nfe, value, color=colour(name), s=46, zorder=3)
        label = f"{name}\n{costs[name]['seconds']:.3g} s"
        axes.annotate(label, (nfe, value), (7, -4), textcoords="offset points", fontsize=8.5, color=INK, va="top", zorder=4)
    axes.margins(0.18)
    axes.set_xlabel("UNet evaluations for a picture (NFE)", fontsize=9, color=SOFT)
    title = "Right caption first of 16, by cost" if rates else "Similarity to guided's pictures (SSIM), by cost"
    axes.set_title(title, loc="left", fontsize=11, color=INK)
    axes.grid(color=LINE, zorder=0)
    axes.tick_params(length=0, labelsize=9, labelcolor=SOFT)
    axes.spines[:].set_visible(False)
    return figure


def colour(name: str) -> str:
    """Of a contender."""
    return COLOURS.get(name) or KINDS.get(name.partition("-")[0], SOFT)
