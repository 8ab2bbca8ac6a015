"""Sheets of pictures: rows of tiles with titles above and captions beneath."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from ..images.style import font
from .examples import Item
from .images import to_rgb, upright

T = TypeVar("T")

TILE = 160  # pixels a side of a picture
GAP = 12  # pixels around a picture
LETTER = 13  # pixels
LINE = 17  # pixels of a line of text
LINES = 5  # lines of a caption at most
TITLE = LINE + 4  # pixels above a picture with a title
CHANNEL_GAP = 1  # latent pixels between two channels
MAX_CAPTION = 4000  # characters of a caption in a file
EXAMPLE_TITLES = ("the image", "as it is cut", "its latents", "decoded again")
MAX_PICTURES = 40
MAX_COLUMNS = 8
INK = (32, 33, 36)
PAPER = (255, 255, 255)


@dataclass(frozen=True)
class SheetRow:
    """A row of a sheet.

    pictures: None leaves a gap.
    titles: a line above each picture, if there are any.
    captions: lines beneath each picture, if there are any.
    """

    pictures: Sequence[Image.Image | None]
    titles: Sequence[str] = ()
    captions: Sequence[Sequence[str]] = ()

    @property
    def height(self) -> int:
        """The pixels of the row with the gap beneath it."""
        height = TILE + GAP
        if self.titles:
            height += TITLE
        if self.captions:
            height += 4 + LINE * max(map(len, self.captions))
        return height


def spread_evenly(items: Sequence[T], limit: int = MAX_PICTURES) -> list[T]:
    """Return at most `limit` items, evenly spread, the first among them."""
    count = min(len(items), limit)
    return [items[i * len(items) // count] for i in range(count)]


def contact_sheet(
    pictures: Sequence[Image.Image], captions: Sequence[str], n_own: int
) -> Image.Image:
    """Return pictures in a grid, each with its caption wrapped beneath.

    n_own: pictures of the source; those after them are the prior's, in rows of their own.
    """
    own = _caption_rows(pictures[:n_own], captions[:n_own])
    prior = _caption_rows(pictures[n_own:], captions[n_own:], "prior")
    return draw_sheet([*own, *prior])


def _caption_rows(pictures, captions, title=""):
    """Yield rows of pictures with their captions wrapped beneath. title: above each picture."""
    for start in range(0, len(pictures), MAX_COLUMNS):
        columns = slice(start, start + MAX_COLUMNS)
        texts = [wrap(caption, TILE) for caption in captions[columns]]
        titles = [title] * len(texts) if title else ()
        yield SheetRow(pictures[columns], titles, texts)


def side_by_side(
    rows: Sequence[Sequence[Image.Image | None]],
    titles: Sequence[str],
) -> Image.Image:
    """Return a column of pictures for each title."""
    first, *others = rows
    return draw_sheet([SheetRow(first, titles), *map(SheetRow, others)])


def write_example_sheet(
    path: Path,
    original: Image.Image,
    original_size: tuple[int, int],
    cut: Image.Image,
    latents: np.ndarray,
    decoded: Image.Image,
    caption: str,
):
    """Write a sheet of the four pictures with their sizes, and the caption inside the file.

    original: the image, of any size.
    original_size: its width and height before that.
    latents: scaled, fp32 [c, h, w].
    decoded: as large as `cut`.
    """
    n_pixels = cut.width * cut.height * 3
    ratio = n_pixels / latents.size
    error = np.abs(np.asarray(cut, np.float64) - np.asarray(decoded, np.float64)).mean()
    shape = [str(side) for side in latents.shape]
    notes = [
        [f"{original_size[0]} × {original_size[1]} pixels"],
        [f"3 × {cut.height} × {cut.width}", f"{n_pixels:,} numbers"],
        [" × ".join(shape), f"{latents.size:,} numbers,", f"{ratio:.3g} times fewer"],
        ["differs from the cut by", f"{error:.1f} of 255 on average"],
    ]
    pictures = [original, cut, latent_picture(latents), decoded]
    facts = PngInfo()
    facts.add_itxt("caption", caption[:MAX_CAPTION])
    draw_sheet([SheetRow(pictures, EXAMPLE_TITLES, notes)]).save(path, pnginfo=facts)


def latent_picture(latents: np.ndarray) -> Image.Image:
    """Return the channels of latents [c, h, w] side by side in a square, black to white."""
    channels, height, width = latents.shape
    columns = math.ceil(math.sqrt(channels))
    rows = math.ceil(channels / columns)
    page_height = rows * (height + CHANNEL_GAP) - CHANNEL_GAP
    page_width = columns * (width + CHANNEL_GAP) - CHANNEL_GAP
    page = np.full((page_height, page_width), 255, np.uint8)
    low = float(latents.min())
    # constant latents have no range
    reach = max(float(latents.max()) - low, 1e-6)
    for index, channel in enumerate(latents):
        top = index // columns * (height + CHANNEL_GAP)
        left = index % columns * (width + CHANNEL_GAP)
        # one scale for all channels, or a weak one would look like a strong one
        page[top : top + height, left : left + width] = np.rint((channel - low) / reach * 255)
    return Image.fromarray(page).convert("RGB")


def draw_sheet(rows: Sequence[SheetRow]) -> Image.Image:
    """Draw rows below one another. Pictures keep their proportions, centred in their tiles."""
    # A row may have fewer pictures than titles.
    columns = max(len(row.titles or row.pictures) for row in rows)
    width = columns * (TILE + GAP) + GAP
    height = sum(row.height for row in rows) + GAP
    sheet = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    top = GAP
    for row in rows:
        _draw_row(sheet, pen, row, top)
        top += row.height
    return sheet


def _draw_row(sheet: Image.Image, pen: ImageDraw.ImageDraw, row: SheetRow, top: int):
    # All rows begin at the same columns, whatever they hold.
    lefts = range(GAP, sheet.width, TILE + GAP)
    if row.titles:
        for left, title in zip(lefts, row.titles, strict=False):
            pen.text((left, top - GAP // 2), title, INK, _face())
        top += TITLE
    for left, picture in zip(lefts, row.pictures, strict=False):
        if picture is not None:
            tile = _tile(picture)
            right = (TILE - tile.width) // 2
            down = (TILE - tile.height) // 2
            sheet.paste(tile, (left + right, top + down))
    for left, lines in zip(lefts, row.captions, strict=False):
        for number, line in enumerate(lines):
            y = top + TILE + 4 + number * LINE
            pen.text((left, y), line, INK, _face())


def load_tile(item: Item) -> Image.Image | None:
    """Return an item's original image, upright, at a tile's size; None if it cannot be shown."""
    try:
        return _tile(to_rgb(upright(item.image.load()[0])))
    except Exception:  # an item may be shown because its image is damaged
        return None


def _tile(picture: Image.Image) -> Image.Image:
    scale = TILE / max(picture.size)
    # The shorter side of a long thin picture must not vanish.
    size = [max(1, round(side * scale)) for side in picture.size]
    return picture.resize(size, Image.Resampling.LANCZOS)


def wrap(text: str, width: int) -> list[str]:
    """Return at most LINES lines no wider than `width` pixels, with an ellipsis if text is cut."""
    lines = []
    rest = " ".join(text.split())
    while rest and len(lines) < LINES:
        end = _fitting_length(rest, width)
        if end < len(rest):
            space = rest.rfind(" ", 0, end + 1)
            # A word wider than the line is broken.
            end = space if space > 0 else end
        lines.append(rest[:end])
        rest = rest[end:].lstrip()
    if rest:
        last = lines[-1]
        end = _fitting_length(last, width - _face().getlength("…"))
        lines[-1] = last[:end] + "…"
    return lines


def _fitting_length(text: str, width: float) -> int:
    """Return how many of the first letters fit into `width` pixels, at least one."""
    # At most a letter for each pixel is measured: a caption may have a mebibyte.
    most = min(len(text), int(width))
    end = 1
    while end < most and _face().getlength(text[: end + 1]) <= width:
        end += 1
    return end


@cache  # a font is read from its file each time that it is made
def _face() -> ImageFont.FreeTypeFont:
    return font(LETTER)
