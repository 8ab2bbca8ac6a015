"""Sheets of pictures: rows of tiles with titles above and captions beneath."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

from PIL import Image, ImageDraw, ImageFont

from ..images.style import font
from .examples import Example, Skipped
from .images import to_rgb, upright

T = TypeVar("T")

TILE = 160  # pixels a side of a picture
GAP = 12  # pixels around a picture
LETTER, LINE = 13, 17  # pixels of a letter and of a line
LINES = 5  # lines of a caption at most
MAX_PICTURES = 40
MAX_COLUMNS = 8
INK, PAPER = (32, 33, 36), (255, 255, 255)


@dataclass(frozen=True)
class Row:
    """A row of a sheet.

    pictures: None leaves a gap.
    titles: a line above each picture, if there are any.
    captions: lines beneath each picture, if there are any.
    """

    pictures: Sequence[Image.Image | None]
    titles: Sequence[str] = ()
    captions: Sequence[Sequence[str]] = ()

    @property
    def head(self) -> int:
        return LINE + 4 if self.titles else 0

    @property
    def height(self) -> int:
        lines = max(map(len, self.captions), default=0)
        foot = 4 + LINE * lines if self.captions else 0
        return self.head + TILE + foot + GAP


def spread_evenly(items: Sequence[T], limit: int = MAX_PICTURES) -> list[T]:
    """Return at most `limit` items, evenly spread, the first among them."""
    count = min(len(items), limit)
    return [items[i * len(items) // count] for i in range(count)]


def contact_sheet(pictures: Sequence[Image.Image], captions: Sequence[str]) -> Image.Image:
    """Return pictures in a grid, each with its caption wrapped beneath."""
    columns = min(len(pictures), MAX_COLUMNS)
    texts = [wrap(caption, TILE) for caption in captions]
    starts = range(0, len(pictures), columns)
    return draw_sheet(
        [Row(pictures[i : i + columns], captions=texts[i : i + columns]) for i in starts]
    )


def side_by_side(
    rows: Sequence[Sequence[Image.Image | None]], titles: Sequence[str]
) -> Image.Image:
    """Return a column of pictures for each title."""
    first, *others = rows
    return draw_sheet([Row(first, titles), *map(Row, others)])


def draw_sheet(rows: Sequence[Row]) -> Image.Image:
    """Draw rows below one another. Pictures keep their proportions, centred in their tiles."""
    columns = max(max(len(row.pictures), len(row.titles)) for row in rows)
    height = sum(row.height for row in rows) + GAP
    sheet = Image.new("RGB", (columns * (TILE + GAP) + GAP, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    top = GAP
    for row in rows:
        _draw_row(sheet, pen, row, top)
        top += row.height
    return sheet


def _draw_row(sheet: Image.Image, pen: ImageDraw.ImageDraw, row: Row, top: int):
    for column, title in enumerate(row.titles):
        pen.text((GAP + column * (TILE + GAP), top - GAP // 2), title, INK, _face())
    top += row.head
    for column, picture in enumerate(row.pictures):
        if picture is not None:
            tile = _tile(picture)
            left = GAP + column * (TILE + GAP) + (TILE - tile.width) // 2
            sheet.paste(tile, (left, top + (TILE - tile.height) // 2))
    for column, lines in enumerate(row.captions):
        for number, line in enumerate(lines):
            baseline = top + TILE + 4 + number * LINE
            pen.text((GAP + column * (TILE + GAP), baseline), line, INK, _face())


def load_tile(item: Example | Skipped) -> Image.Image | None:
    """Return an item's original image, upright, at a tile's size; None if it cannot be shown."""
    try:
        return _tile(to_rgb(upright(item.image.load()[0])))
    except Exception:  # an item may be shown because its image is damaged
        return None


def _tile(picture: Image.Image) -> Image.Image:
    scale = TILE / max(picture.size)
    size = [max(1, round(side * scale)) for side in picture.size]
    return picture.resize(size, Image.Resampling.LANCZOS)


def wrap(text: str, width: int) -> list[str]:
    """Return at most LINES lines no wider than `width` pixels, with an ellipsis if text is cut."""
    lines = []
    rest = " ".join(text.split())
    while rest and len(lines) < LINES:
        end = _fitting_length(rest, width)
        space = rest.rfind(" ", 0, end + 1) if end < len(rest) else end
        # A word wider than the line is broken.
        end = space if space > 0 else end
        lines.append(rest[:end])
        rest = rest[end:].lstrip()
    if rest:
        room = width - _face().getlength("…")
        lines[-1] = lines[-1][: _fitting_length(lines[-1], room)] + "…"
    return lines


def _fitting_length(text: str, width: float) -> int:
    """Return how many of the first letters fit into `width` pixels, at least one."""
    end = 1
    # At most a letter for each pixel is measured: a caption may have a mebibyte.
    while end < min(len(text), width) and _face().getlength(text[: end + 1]) <= width:
        end += 1
    return end


@cache
def _face() -> ImageFont.FreeTypeFont:
    return font(LETTER)
