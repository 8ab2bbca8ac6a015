"""The palette and the fonts of all figures."""

from pathlib import Path

import matplotlib
from PIL import ImageFont

CONTENDER_COLOURS = {"unguided": "#8a8f98", "guided": "#d98324", "tuned": "#0b5f6b"}
# Of variants, near the colour of the contender that they vary.
VARIANT_COLOURS = {
    "selective": "#e3b06b",
    "hybrid": "#5a9aa3",
    "guided": "#b5651d",
    "tuned": "#3f8d97",
}
OTHER_COLOURS = ("#7a4e9c", "#3a7d44", "#a83f5a", "#4a6fa5")
INK = "#1c1b1a"
SOFT = "#5f5c58"
RULE = "#e3e0db"
# Of plots without contenders: the series, its counterpart, and the background series.
MAIN = CONTENDER_COLOURS["tuned"]
CONTRAST = CONTENDER_COLOURS["guided"]
MUTED = CONTENDER_COLOURS["unguided"]
FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"  # matplotlib's, on every machine


def contender_colour(name: str) -> str:
    """Return a contender's colour: fixed for the standard ones and variants, hashed otherwise."""
    kind = name.partition(" ")[0].partition("-")[0]
    # from the name alone, so a contender keeps its colour when others join
    other = OTHER_COLOURS[sum(name.encode()) % len(OTHER_COLOURS)]
    return CONTENDER_COLOURS.get(name) or VARIANT_COLOURS.get(kind, other)


def font(size: int, weight: str = "") -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans.

    size: pixels
    weight: "" or "-Bold"
    """
    return ImageFont.truetype(FONTS / f"DejaVuSans{weight}.ttf", size)
