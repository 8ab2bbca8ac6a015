"""What there is to look at after preparing: a contact sheet, a table of captions, a table of what was skipped."""

from collections.abc import Sequence
from html import escape
from textwrap import wrap
from typing import TypeVar

from PIL import Image, ImageDraw, ImageFont

T = TypeVar("T")
SHOWN = 40  # pictures of a contact sheet
COLUMNS, SIDE, GAP, LINES = 8, 128, 14, 4  # of the sheet; pixels


def spread(items: Sequence[T], count: int = SHOWN) -> list[T]:
    """At most `count` of the items, evenly from the first to the last."""
    if len(items) <= count:
        return list(items)
    return [items[i * (len(items) - 1) // (count - 1)] for i in range(count)]


def contact_sheet(pictures: Sequence[Image.Image], captions: Sequence[str]) -> Image.Image:
    """Pictures in rows of eight, each with its caption beneath; small ones are enlarged with their pixels left square."""
    font = ImageFont.load_default(11)
    line = 14
    height = SIDE + LINES * line + GAP
    rows = -(-len(pictures) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * (SIDE + GAP) + GAP, rows * height + GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for i, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        x, y = GAP + i % COLUMNS * (SIDE + GAP), GAP + i // COLUMNS * height
        how = Image.Resampling.NEAREST if picture.width < SIDE else Image.Resampling.LANCZOS
        sheet.paste(picture.resize((SIDE, SIDE), how), (x, y))
        words = wrap(caption, 24)
        if len(words) > LINES:
            words = [*words[: LINES - 1], words[LINES - 1][:23] + "…"]
        for row, text in enumerate(words):
            pen.text((x, y + SIDE + 2 + row * line), text, fill="#334155", font=font)
    return sheet


def caption_table(ids: Sequence[str], captions: Sequence[str], count: int = 12) -> str:
    """Some of the captions as an HTML table."""
    rows = spread(list(zip(ids, captions, strict=True)), count)
    return _table(("example", "caption"), rows, f"{len(rows)} of {len(captions)} captions")


def skipped_table(skipped: Sequence[dict[str, str]], count: int = 50) -> str:
    """What was skipped and why, as an HTML table."""
    if not skipped:
        return "<p>Nothing was skipped.</p>"
    rows = [(each["id"], each["reason"]) for each in skipped[:count]]
    return _table(("skipped", "reason"), rows, f"{len(rows)} of {len(skipped)} skipped")


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]], caption: str) -> str:
    style = 'style="text-align:left"'
    head = "".join(f"<th {style}>{escape(each)}</th>" for each in heads)
    body = "".join("<tr>" + "".join(f"<td {style}>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><caption>{escape(caption)}</caption><tr>{head}</tr>{body}</table>"
