"""What the notebook shows: a sheet of pictures with their captions, and tables. Everything that users wrote is escaped."""

from collections import Counter
from collections.abc import Sequence
from functools import cache
from html import escape
from pathlib import Path
from typing import TypeVar

import matplotlib
from PIL import Image, ImageDraw, ImageFont

T = TypeVar("T")

MOST = 40  # pictures of a sheet
TILE = 160  # pixels a side of a picture in it
GAP = 12  # pixels around a picture
LETTER, LINE, LINES = 13, 17, 5  # pixels of a letter and of a line; lines of a caption at most
INK, PAPER = (32, 33, 36), (255, 255, 255)


def spread(items: Sequence[T], most: int = MOST) -> list[T]:
    """At most `most` items, evenly spread, the first among them."""
    count = min(len(items), most)
    return [items[i * len(items) // count] for i in range(count)]


def contact_sheet(pictures: Sequence[Image.Image], captions: Sequence[str]) -> Image.Image:
    """Pictures in a grid, at most eight in a row, each with its caption wrapped beneath."""
    columns = min(len(pictures), 8)
    texts = [wrap(caption, TILE) for caption in captions]
    rows = [texts[i : i + columns] for i in range(0, len(texts), columns)]
    heights = [TILE + 4 + LINE * max(map(len, row)) + GAP for row in rows]
    sheet = Image.new("RGB", (columns * (TILE + GAP) + GAP, sum(heights) + GAP), PAPER)
    pen = ImageDraw.Draw(sheet)
    for i, (picture, lines) in enumerate(zip(pictures, texts, strict=True)):
        x, y = GAP + i % columns * (TILE + GAP), GAP + sum(heights[: i // columns])
        sheet.paste(picture.resize((TILE, TILE), Image.Resampling.LANCZOS), (x, y))
        for k, line in enumerate(lines):
            pen.text((x, y + TILE + 4 + k * LINE), line, INK, _font())
    return sheet


def wrap(text: str, width: int) -> list[str]:
    """Lines no wider than `width` pixels, `LINES` at most; what does not fit ends in an ellipsis."""
    lines, rest = [], " ".join(text.split())
    while rest and len(lines) < LINES:
        end = _fitting(rest, width)
        space = rest.rfind(" ", 0, end + 1) if end < len(rest) else end
        end = space if space > 0 else end  # a word wider than the line is broken
        lines.append(rest[:end])
        rest = rest[end:].lstrip()
    if rest:
        lines[-1] = lines[-1][: _fitting(lines[-1], width - _font().getlength("…"))] + "…"
    return lines


def _fitting(text: str, width: float) -> int:
    """How many of the first letters fit into `width` pixels, at least one."""
    font, end = _font(), 1
    while end < min(len(text), width) and font.getlength(text[: end + 1]) <= width:
        end += 1
    return end


@cache
def _font() -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and knows more letters than Pillow's own."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), LETTER)


def caption_table(ids: Sequence[str], captions: Sequence[str], most: int = 12) -> str:
    """Some of the examples' captions, and how many distinct ones there are, as an HTML table."""
    rows = spread(list(zip(ids, captions, strict=True)), most)
    note = f"{len(captions)} examples, {len(set(captions))} distinct captions" + _shown(len(rows), len(captions))
    return _table(note, ("example", "caption"), rows)


def skipped_table(skipped: Sequence[dict[str, str]], most: int = 50) -> str:
    """What could not be used, with the reason, as an HTML table; how many of each reason above it."""
    if not skipped:
        return "<p>Nothing was skipped.</p>"
    reasons = Counter(each["reason"] for each in skipped)
    counts = ", ".join(f"{number} × {reason}" for reason, number in reasons.most_common())
    rows = [(each["id"], each["reason"]) for each in skipped[:most]]
    return _table(f"{len(skipped)} skipped: {counts}{_shown(len(rows), len(skipped))}", ("skipped", "reason"), rows)


def _shown(shown: int, of: int) -> str:
    return f"; {shown} shown" if shown < of else ""


def _table(note: str, head: Sequence[str], rows: Sequence[Sequence]) -> str:
    """A table with `note` as its caption; every cell is escaped."""
    cells = ["".join(f'<td style="text-align:left">{escape(str(cell))}</td>' for cell in row) for row in rows]
    titles = "".join(f'<th scope="col" style="text-align:left">{escape(title)}</th>' for title in head)
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    caption = f'<caption style="text-align:left">{escape(note)}</caption>'
    return f"<table>{caption}<thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"
