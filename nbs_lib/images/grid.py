"""Pages of pictures: grids with labelled rows and columns.

Drawn with Pillow, so that small pictures keep their pixels square."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .style import INK, SOFT, contender_colour, font

DISPLAY_SIDE = 192  # pixels that a small picture is enlarged to, at most
MAX_SIDE = 256  # pixels that a large picture is reduced to
MAX_COLUMNS = 5  # pictures in a row
GAP, MARGIN = 8, 28
LINES = 3  # of a prompt, at most
LINE_HEIGHT = 18
MAX_LABEL_WIDTH = 150  # pixels that the label of a row may be wide


@dataclass(frozen=True)
class Row:
    """A contender's row of the grid. images: uint8 [n, h, w, 3]; note: a line for each fact under its name."""

    name: str
    images: np.ndarray
    note: str = ""


def labelled_grid(rows: Sequence[Row], prompts: Sequence[str], seeds: Sequence[int]) -> Image.Image:
    """Every picture of every contender: a column for each prompt and seed, in bands of labelled rows.

    prompts, seeds: one for each column, the seeds of a prompt side by side. Small pictures keep their pixels square.
    """
    large, small = font(15, "-Bold"), font(13)
    pictures = [[scale_for_display(image) for image in row.images] for row in rows]
    width, height = pictures[0][0].size
    notes = [row.note.splitlines() for row in rows]
    left = MARGIN + round(max(large.getlength(r.name) for r in rows)) + GAP * 2
    left = max(
        left,
        MARGIN
        + round(max((small.getlength(line) for note in notes for line in note), default=0))
        + GAP * 2,
    )
    titles = [
        prompt_lines(prompt, seed, len(set(seeds)) > 1, small, width)
        for prompt, seed in zip(prompts, seeds, strict=True)
    ]
    each = len(set(seeds))
    across = min(len(prompts), MAX_COLUMNS // each * each or MAX_COLUMNS)
    bands = [
        range(first, min(first + across, len(prompts))) for first in range(0, len(prompts), across)
    ]
    heads = [LINE_HEIGHT * max(len(titles[i]) for i in band) + GAP for band in bands]
    tall = sum(heads) + len(bands) * (len(rows) * (height + GAP) + MARGIN) + MARGIN
    page = Image.new("RGB", (left + across * (width + GAP) - GAP + MARGIN, tall), "white")
    pen, y = ImageDraw.Draw(page), MARGIN
    for band, head in zip(bands, heads, strict=True):
        for column, i in enumerate(band):
            text = titles[i]
            for number, line in enumerate(text):  # titles stand on their pictures
                where = (
                    left + column * (width + GAP),
                    y + head - GAP - LINE_HEIGHT * (len(text) - number),
                )
                pen.text(where, line, INK, small)
        y += head
        for row, drawn, note in zip(rows, pictures, notes, strict=True):
            top = y + (height - 22 - LINE_HEIGHT * len(note)) // 2
            pen.rectangle((MARGIN - 12, y, MARGIN - 8, y + height - 1), contender_colour(row.name))
            pen.text((MARGIN, top), row.name, INK, large)
            for number, line in enumerate(note):
                pen.text((MARGIN, top + 24 + LINE_HEIGHT * number), line, SOFT, small)
            for column, i in enumerate(band):
                page.paste(drawn[i], (left + column * (width + GAP), y))
            y += height + GAP
        y += MARGIN
    return page


def scale_for_display(image: np.ndarray) -> Image.Image:
    """A picture at the size it is shown: small ones by a whole factor with square pixels, large ones reduced."""
    picture = Image.fromarray(image)
    longest = max(picture.size)
    if longest > MAX_SIDE:
        return picture.resize(
            [max(1, round(side * MAX_SIDE / longest)) for side in picture.size],
            Image.Resampling.LANCZOS,
        )
    factor = max(1, DISPLAY_SIDE // longest)
    return picture.resize([side * factor for side in picture.size], Image.Resampling.NEAREST)


def prompt_lines(
    prompt: str, seed: int, with_seed: bool, face: ImageFont.FreeTypeFont, width: int
) -> list[str]:
    """A prompt in lines that fit the width; the seed on a line of its own where there are several."""
    return wrap_text(prompt, face, width) + ([f"seed {seed}"] if with_seed else [])


def wrap_text(text: str, face: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """A text in LINES lines at most that fit the width."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if face.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    cut = len(lines) > LINES
    return [
        _fitting(line, face, width, cut and i == LINES - 1) for i, line in enumerate(lines[:LINES])
    ]


def _fitting(line: str, face: ImageFont.FreeTypeFont, width: int, cut: bool) -> str:
    """The line, shortened to the width; with an ellipsis if it is cut here."""
    while line and face.getlength(line + "…" * cut) > width:
        line, cut = line[:-1], True
    return line + "…" * cut


def captioned_table(
    pictures: np.ndarray,
    columns: Sequence[str],
    rows: Sequence[str],
    title: str = "",
    notes: Sequence[str] = (),
) -> Image.Image:
    """Pictures uint8 [rows, columns, h, w, 3] with a label over each column and beside each row, and a title over all.

    notes: a line more for each column's label.
    """
    face, bold = font(13), font(15, "-Bold")
    shown = [[scale_for_display(picture) for picture in row] for row in pictures]
    width, height = shown[0][0].size
    over = [wrap_text(each, face, width) + list(notes[i : i + 1]) for i, each in enumerate(columns)]
    beside = [wrap_text(each, face, MAX_LABEL_WIDTH) for each in rows]
    left = (
        MARGIN
        + round(max((face.getlength(line) for lines in beside for line in lines), default=0))
        + 2 * GAP
    )
    head = MARGIN + (LINE_HEIGHT + GAP) * bool(title) + LINE_HEIGHT * max(map(len, over)) + GAP
    size = (
        left + len(columns) * (width + GAP) - GAP + MARGIN,
        head + len(rows) * (height + GAP) - GAP + MARGIN,
    )
    page = Image.new(
        "RGB", (max(size[0], round(bold.getlength(title)) + 2 * MARGIN), size[1]), "white"
    )
    pen = ImageDraw.Draw(page)
    pen.text((MARGIN, MARGIN - 6), title, INK, bold)
    for column, lines in enumerate(over):
        for number, line in enumerate(lines):  # labels stand on their pictures
            pen.text(
                (left + column * (width + GAP), head - GAP - LINE_HEIGHT * (len(lines) - number)),
                line,
                INK,
                face,
            )
    for row, lines in enumerate(beside):
        top = head + row * (height + GAP)
        for number, line in enumerate(lines):
            pen.text(
                (MARGIN, top + (height - LINE_HEIGHT * len(lines)) // 2 + LINE_HEIGHT * number),
                line,
                SOFT,
                face,
            )
        for column, picture in enumerate(shown[row]):
            page.paste(picture, (left + column * (width + GAP), top))
    return page


def stack_vertically(pages: Sequence[Image.Image]) -> Image.Image:
    """Pages below one another."""
    whole = Image.new(
        "RGB", (max(page.width for page in pages), sum(page.height for page in pages)), "white"
    )
    top = 0
    for page in pages:
        whole.paste(page, (0, top))
        top += page.height
    return whole
