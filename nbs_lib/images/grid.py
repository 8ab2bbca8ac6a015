"""Pages of pictures: grids with labelled rows and columns, drawn with Pillow."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .style import INK, SOFT, contender_colour, font

# Lengths in pixels.
DISPLAY_SIDE = 192  # a small picture is enlarged up to this
MAX_SIDE = 256  # a large picture is reduced to this
MAX_COLUMNS = 5  # pictures in a row
CELL_GAP = 8
MARGIN = 28
MAX_PROMPT_LINES = 3
LINE_HEIGHT = 18
NAME_HEIGHT = 24
MAX_LABEL_WIDTH = 150  # of a row's label


@dataclass(frozen=True)
class GridRow:
    """A contender's row of the grid.

    images: uint8 [n, h, w, 3]
    note: lines of facts under its name
    """

    name: str
    images: np.ndarray
    note: str = ""


def labelled_grid(
    rows: Sequence[GridRow], prompts: Sequence[str], seeds: Sequence[int]
) -> Image.Image:
    """Return a page with a row for each contender and a column for each prompt and seed.

    Columns that do not fit side by side continue in another band below.

    prompts, seeds: one for each column, the seeds of a prompt side by side
    """
    bold = font(15, "-Bold")
    face = font(13)
    n_seeds = len(set(seeds))
    pictures = [_scaled(row.images) for row in rows]
    # all pictures of a page have one size
    width, height = pictures[0][0].size
    titles = [
        prompt_lines(prompt, seed, n_seeds > 1, face, width)
        for prompt, seed in zip(prompts, seeds, strict=True)
    ]
    names_width = _text_width(bold, [row.name for row in rows])
    notes_width = _text_width(face, chain.from_iterable(row.note.splitlines() for row in rows))
    left = MARGIN + max(names_width, notes_width) + 2 * CELL_GAP
    # a multiple of the seeds, so that a band ends with a whole prompt
    columns = min(len(prompts), MAX_COLUMNS // n_seeds * n_seeds or MAX_COLUMNS)
    bands = [titles[first : first + columns] for first in range(0, len(titles), columns)]
    heads = [_lines_height(band) + CELL_GAP for band in bands]
    band_height = len(rows) * (height + CELL_GAP) + MARGIN
    page_height = MARGIN + sum(heads) + len(bands) * band_height
    page = Image.new(
        "RGB", (left + columns * (width + CELL_GAP) - CELL_GAP + MARGIN, page_height), "white"
    )
    pen = ImageDraw.Draw(page)
    top = MARGIN
    for number, (band, head) in enumerate(zip(bands, heads, strict=True)):
        top += head
        _draw_titles(pen, left, top, width, band, face)
        first = number * columns
        for row, images in zip(rows, pictures, strict=True):
            _draw_row_label(pen, top, height, row, bold, face)
            _paste_row(page, left, top, images[first : first + len(band)])
            top += height + CELL_GAP
        top += MARGIN
    return page


def captioned_table(
    pictures: np.ndarray,
    columns: Sequence[str],
    rows: Sequence[str],
    title: str = "",
    notes: Sequence[str] = (),
) -> Image.Image:
    """Return a page with a label over each column and beside each row.

    pictures: uint8 [rows, columns, h, w, 3]
    notes: an additional line for each column's label
    """
    face = font(13)
    bold = font(15, "-Bold")
    scaled = [_scaled(row) for row in pictures]
    width, height = scaled[0][0].size
    above = [wrap_text(label, face, width) for label in columns]
    for lines, note in zip(above, notes, strict=False):
        lines.append(note)
    beside = [wrap_text(label, face, MAX_LABEL_WIDTH) for label in rows]
    left = MARGIN + _text_width(face, chain.from_iterable(beside)) + 2 * CELL_GAP
    head = MARGIN + (LINE_HEIGHT + CELL_GAP) * bool(title) + _lines_height(above) + CELL_GAP
    table_width = left + len(columns) * (width + CELL_GAP) - CELL_GAP + MARGIN
    page_width = max(table_width, _text_width(bold, [title]) + 2 * MARGIN)
    page_height = head + len(rows) * (height + CELL_GAP) - CELL_GAP + MARGIN
    page = Image.new("RGB", (page_width, page_height), "white")
    pen = ImageDraw.Draw(page)
    pen.text((MARGIN, MARGIN - 6), title, INK, bold)
    _draw_titles(pen, left, head, width, above, face)
    top = head
    for lines, images in zip(beside, scaled, strict=True):
        middle = top + (height - LINE_HEIGHT * len(lines)) // 2
        _draw_lines(pen, (MARGIN, middle), lines, SOFT, face)
        _paste_row(page, left, top, images)
        top += height + CELL_GAP
    return page


def stack_vertically(pages: Sequence[Image.Image]) -> Image.Image:
    """Return pages below one another on one page."""
    size = (max(page.width for page in pages), sum(page.height for page in pages))
    stacked = Image.new("RGB", size, "white")
    top = 0
    for page in pages:
        stacked.paste(page, (0, top))
        top += page.height
    return stacked


def scale_for_display(image: np.ndarray) -> Image.Image:
    """Return a picture in its display size.

    image: uint8 [h, w, 3]
    """
    picture = Image.fromarray(image)
    longest = max(picture.size)
    if longest > MAX_SIDE:
        size = [max(1, round(side * MAX_SIDE / longest)) for side in picture.size]
        return picture.resize(size, Image.Resampling.LANCZOS)
    # by an integer, so that the pixels of a small picture stay square
    factor = max(1, DISPLAY_SIDE // longest)
    return picture.resize([side * factor for side in picture.size], Image.Resampling.NEAREST)


def _scaled(images: np.ndarray) -> list[Image.Image]:
    return [scale_for_display(image) for image in images]


def prompt_lines(
    prompt: str, seed: int, with_seed: bool, face: ImageFont.FreeTypeFont, width: int
) -> list[str]:
    """Return a prompt in lines that fit the width, and its seed on a line if there are several."""
    return wrap_text(prompt, face, width) + ([f"seed {seed}"] if with_seed else [])


def wrap_text(text: str, face: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Return a text in at most MAX_PROMPT_LINES lines that fit the width."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        # a word wider than the line gets a line of its own and is shortened
        if face.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    first = [_shorten(line, face, width) for line in lines[:MAX_PROMPT_LINES]]
    if len(lines) > MAX_PROMPT_LINES:
        first[-1] = _shorten(lines[MAX_PROMPT_LINES - 1], face, width, "…")
    return first


def _shorten(line: str, face: ImageFont.FreeTypeFont, width: int, ending: str = "") -> str:
    """Return a line that fits the width; with an ellipsis if it is cut."""
    while line and face.getlength(line + ending) > width:
        line = line[:-1]
        ending = "…"
    return line + ending


def _text_width(face: ImageFont.FreeTypeFont, lines: Iterable[str]) -> int:
    return round(max(map(face.getlength, lines), default=0))


def _lines_height(labels: Sequence[Sequence[str]]) -> int:
    return LINE_HEIGHT * max(map(len, labels))


def _draw_lines(pen: ImageDraw.ImageDraw, position: tuple, lines: Sequence[str], ink: str, face):
    left, top = position
    for line in lines:
        pen.text((left, top), line, ink, face)
        top += LINE_HEIGHT


def _draw_titles(pen, left: int, bottom: int, width: int, titles: Sequence[Sequence[str]], face):
    """Draw a title over each column; titles of different heights end at the pictures."""
    for column, lines in enumerate(titles):
        top = bottom - CELL_GAP - LINE_HEIGHT * len(lines)
        _draw_lines(pen, (left + column * (width + CELL_GAP), top), lines, INK, face)


def _draw_row_label(pen: ImageDraw.ImageDraw, top: int, height: int, row: GridRow, bold, face):
    note = row.note.splitlines()
    # the contender's colour, as in the plots
    bar = (MARGIN - 12, top, MARGIN - 8, top + height - 1)
    pen.rectangle(bar, contender_colour(row.name))
    # 22 for the name above the notes
    middle = top + (height - 22 - LINE_HEIGHT * len(note)) // 2
    pen.text((MARGIN, middle), row.name, INK, bold)
    _draw_lines(pen, (MARGIN, middle + NAME_HEIGHT), note, SOFT, face)


def _paste_row(page: Image.Image, left: int, top: int, images: Sequence[Image.Image]):
    for image in images:
        page.paste(image, (left, top))
        left += image.width + CELL_GAP
