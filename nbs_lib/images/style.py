"""How figures look: colours of contenders, ink, fonts."""

from pathlib import Path

import matplotlib
from PIL import ImageFont

COLOURS = {"unguided": "#8a8f98", "guided": "#d98324", "tuned": "#0b5f6b"}
CONTENDER_COLOURS = {
    "selective": "#e3b06b",
    "hybrid": "#5a9aa3",
    "guided": "#b5651d",
    "tuned": "#3f8d97",
}
OTHER_COLOURS = ("#7a4e9c", "#3a7d44", "#a83f5a", "#4a6fa5")
INK, SOFT, LINE = "#1c1b1a", "#5f5c58", "#e3e0db"
MAIN, CONTRAST, MUTED = "#0b5f6b", "#d98324", "#8a8f98"
"""Of plots without contenders: the series, what is set against it, and what stands behind it."""
FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"


def contender_colour(name: str) -> str:
    """Of a contender: the three have their own, variants of them are near it, and others are told apart by their names."""
    kind = name.partition(" ")[0].partition("-")[0]
    return (
        COLOURS.get(name)
        or CONTENDER_COLOURS.get(kind)
        or OTHER_COLOURS[sum(name.encode()) % len(OTHER_COLOURS)]
    )


def font(size: int, weight: str = "") -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(FONTS / f"DejaVuSans{weight}.ttf", size)
