"""What the notebook shows: sheets of pictures, histograms, tables. Everything that users wrote is escaped.

contact_sheet.png and as_trained.png are the cache's; what follows is of a run, in its folder `prepare/`:

    sizes.png     how large images are, and of which proportions
    captions.png  how many tokens captions have, beside how many the text encoder reads
    dropped.png   for each reason some of the images that were dropped for it
    alike.png     images that look alike, side by side
"""

import math
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from html import escape
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from PIL import Image, ImageDraw, ImageFont

from ..files import write_atomic
from ..images.style import CONTRAST, MAIN
from .examples import Example, Skipped
from .images import to_rgb, upright
from .manifest import Manifest

T = TypeVar("T")

MOST = 40  # pictures of a sheet
TILE = 160  # pixels a side of a picture in it
GAP = 12  # pixels around a picture
LETTER, LINE, LINES = 13, 17, 5  # pixels of a letter and of a line; lines of a caption at most
BINS, SEEN = (
    41,
    100,
)  # bars of a histogram, and how much higher one may be than another that is to be seen
NARROWEST = (
    1.0  # powers of two that proportions are shown over, at least, to either side of a square
)
TICKS = ("1:10", "1:4", "1:2", "3:4", "1:1", "4:3", "2:1", "4:1", "10:1")
INK, PAPER = (32, 33, 36), (255, 255, 255)


def picture_sheet(items: Sequence[T], most: int = MOST) -> list[T]:
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
        tile = _tile(picture)
        sheet.paste(tile, (x + (TILE - tile.width) // 2, y + (TILE - tile.height) // 2))
        for k, line in enumerate(lines):
            pen.text((x, y + TILE + 4 + k * LINE), line, INK, _font())
    return sheet


def side_by_side(
    rows: Sequence[Sequence[Image.Image | None]], titles: Sequence[str]
) -> Image.Image:
    """A column of pictures for each title; each keeps its proportions, none is enlarged beyond a tile."""
    sheet = Image.new(
        "RGB", (len(titles) * (TILE + GAP) + GAP, len(rows) * (TILE + GAP) + GAP + LINE + 4), PAPER
    )
    pen = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        pen.text((GAP + column * (TILE + GAP), GAP // 2), title, INK, _font())
    for i, row in enumerate(rows):
        for column, picture in enumerate(row):
            if picture is not None:
                tile = _tile(picture)
                left, top = GAP + column * (TILE + GAP), GAP + LINE + 4 + i * (TILE + GAP)
                sheet.paste(
                    tile, (left + (TILE - tile.width) // 2, top + (TILE - tile.height) // 2)
                )
    return sheet


def original(example: Example | Skipped) -> Image.Image | None:
    """An image as it was, upright, for a sheet; None where it cannot be shown."""
    place = example.image if isinstance(example, Example) else example.place
    try:
        return _tile(to_rgb(upright(place.look()[0])))
    except Exception:  # it may be shown because it is damaged
        return None


def _tile(picture: Image.Image) -> Image.Image:
    scale = TILE / max(picture.size)
    size = [max(1, round(side * scale)) for side in picture.size]
    return picture.resize(size, Image.Resampling.LANCZOS)


def draw_all(folder: Path, notes: Manifest, most_tokens: int):
    """The pictures of a run's folder `prepare/`, as far as there is something to show."""
    made = {
        "sizes.png": _png(_sizes(notes.sizes)) if notes.sizes else None,
        "captions.png": _png(_lengths(notes.tokens, most_tokens)) if notes.tokens else None,
        "dropped.png": _png(_dropped(notes.dropped_ones)),
        "alike.png": _png(_alike(notes.alike)),
    }
    for name, png in made.items():
        if png is None:
            (folder / name).unlink(missing_ok=True)
        else:
            write_atomic(
                folder / name, png
            )  # a new file: the one that was there may be another run's, too


def _png(picture: Figure | Image.Image | None) -> bytes | None:
    buffer = BytesIO()
    if isinstance(picture, Figure):
        picture.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    elif picture is not None:
        picture.save(buffer, "PNG")
    return buffer.getvalue() or None


def _sizes(sizes: Counter) -> Figure:
    figure = Figure(figsize=(9, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    _histogram(
        left, [math.sqrt(width * height) for width, height in sizes], list(sizes.values()), None
    )
    left.set(xlabel="size: square root of width × height, pixels")
    proportions = [math.log2(width / height) for width, height in sizes]
    widest = max(NARROWEST, *map(abs, proportions)) * 1.1
    _histogram(right, proportions, list(sizes.values()), (-widest, widest))
    ticks = {name: math.log2(Fraction(name.replace(":", "/"))) for name in TICKS}
    ticks = {
        name: place
        for name, place in ticks.items()
        if widest / 8 < abs(place) <= widest or not place
    }
    right.set_xticks(list(ticks.values()), list(ticks))
    right.set(xlabel="proportions, width : height", xlim=(-widest, widest))
    return figure


def _histogram(
    axes: Axes, values: list[float], counts: list[int], ends: tuple[float, float] | None
):
    """Bars of how many images there are; an odd number of them, so that squares have the middle one for themselves."""
    heights, _, _ = axes.hist(values, bins=BINS, range=ends, weights=counts, color=MAIN)
    axes.set_ylabel("images")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    if max(heights) > SEEN * min(
        height for height in heights if height
    ):  # or else the few would not be seen beside the many
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.5)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_ylabel("images, logarithmic")


def _lengths(tokens: Counter, most: int) -> Figure:
    figure = Figure(figsize=(9, 2.6), layout="constrained")
    axes = figure.subplots()
    axes.bar(list(tokens), list(tokens.values()), width=1.0, color=MAIN)
    axes.axvline(most + 0.5, color=CONTRAST, linestyle="--")
    side, aside = ("left", 6) if most < max(tokens) / 2 else ("right", -6)
    axes.annotate(f"what the text encoder reads: {most}", (most + 0.5, 0.97), (aside, 0), ("data", "axes fraction"),
                  "offset points", va="top", ha=side, color=CONTRAST)  # fmt: skip
    axes.set(
        xlabel="tokens of a caption, its beginning and end among them", ylabel="distinct captions"
    )
    return figure


def _dropped(dropped: dict[str, list[Skipped]]) -> Image.Image | None:
    rows = [
        (reason, [original(each) for each in some if each.place is not None])
        for reason, some in dropped.items()
    ]
    rows = [(reason, [each for each in some if each is not None]) for reason, some in rows]
    rows = [(reason, some) for reason, some in rows if some]
    if not rows:
        return None
    height = TILE + LINE + 4 + GAP
    sheet = Image.new("RGB", (4 * (TILE + GAP) + GAP, len(rows) * height + GAP), PAPER)
    pen = ImageDraw.Draw(sheet)
    for i, (reason, some) in enumerate(rows):
        pen.text((GAP, GAP + i * height), reason, INK, _font())
        for column, picture in enumerate(some):
            sheet.paste(picture, (GAP + column * (TILE + GAP), GAP + i * height + LINE + 4))
    return sheet


def _alike(alike: list[tuple[Example, Example]]) -> Image.Image | None:
    rows = [(original(first), original(second)) for first, second in alike]
    return side_by_side(rows, ("look alike", "")) if rows else None


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
    return ImageFont.truetype(
        str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), LETTER
    )


def caption_table(ids: Sequence[str], captions: Sequence[str], most: int = 12) -> str:
    """Some of the examples' captions, and how many distinct ones there are, as an HTML table."""
    rows = picture_sheet(list(zip(ids, captions, strict=True)), most)
    note = f"{len(captions)} examples, {len(set(captions))} distinct captions" + _shown(
        len(rows), len(captions)
    )
    return _table(note, ("example", "caption"), rows)


def reasons_table(kept: int, dropped: dict[str, int]) -> str:
    """How many examples were kept, and how many were dropped for which reason, as an HTML table."""
    if not any(dropped.values()):
        return f"<p>{kept} kept.</p>"
    rows = [
        (reason, number) for reason, number in sorted(dropped.items(), key=lambda each: -each[1])
    ]
    return _table(f"{kept} kept, {sum(dropped.values())} dropped", ("reason", "dropped"), rows)


def dropped_table(dropped: Sequence[dict[str, str]], of: int) -> str:
    """Some of what was dropped, with the reason, as an HTML table."""
    if not dropped:
        return "<p>Nothing was dropped.</p>"
    rows = [(each["id"], each["reason"], each["detail"]) for each in dropped]
    return _table(f"{of} dropped{_shown(len(rows), of)}", ("dropped", "reason", "detail"), rows)


def _shown(shown: int, of: int) -> str:
    return f"; {shown} shown" if shown < of else ""


def _table(note: str, head: Sequence[str], rows: Sequence[Sequence]) -> str:
    """A table with `note` as its caption; every cell is escaped."""
    cells = [
        "".join(f'<td style="text-align:left">{escape(str(cell))}</td>' for cell in row)
        for row in rows
    ]
    titles = "".join(
        f'<th scope="col" style="text-align:left">{escape(title)}</th>' for title in head
    )
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    caption = f'<caption style="text-align:left">{escape(note)}</caption>'
    return f"<table>{caption}<thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"
