"""Scenes with head and shoulders. d is 1 if the named side is right, -1 if it is left."""

from random import Random

from .canvas import PAINT, Canvas, Colour, direction, finish, shade, sky
from .people import portrait

GLASS = (226, 240, 248)
STRAW = (250, 90, 90)
LEMON = (255, 232, 60)
LEMON_EDGE = (196, 168, 20)
JUICE = (250, 240, 150)


def draw_soda(rng: Random, soda: str, shirt: str, side: str, time: str) -> Canvas:
    """Draw a person with a glass of soda."""
    c = sky(rng, time)
    d = direction(side)
    x = 96 - d * 26 + c.jitter(5)
    skin = portrait(c, x, PAINT[shirt], d * 0.6)
    glass = 96 + d * 58 + c.jitter(4)
    y = 96 + c.jitter(4)
    paint = PAINT[soda]
    sleeve = shade(PAINT[shirt], -0.14)
    c.limb([(x + d * 42, 142), (x + d * 54, 184), (glass, 158)], 24, sleeve)
    c.limb([(glass + 6, y - 10), (glass + 16, y - 54)], 6, STRAW)
    _tumbler(c, glass, (y - 34, y + 50), (26, 20), GLASS)
    _tumbler(c, glass, (y - 20, y + 46), (22, 17), paint)
    for _ in range(5):
        c.disc(glass + c.jitter(12), y + 12 + c.jitter(24), 3, None, shade(paint, 0.5))
    c.limb([(glass - 16, y + 58), (glass + 16, y + 54)], 20, skin)
    return finish(c, time)


def _tumbler(c: Canvas, x: float, edges: tuple[float, float], widths: tuple, fill: Colour):
    top, bottom = edges
    wide, narrow = widths
    c.shape([(x - wide, top), (x + wide, top), (x + narrow, bottom), (x - narrow, bottom)], fill)


def draw_lemon(rng: Random, shirt: str, bowl: str, time: str) -> Canvas:
    """Draw a person who squeezes a lemon over a bowl."""
    c = sky(rng, time)
    x = 96 + c.jitter(6)
    skin = portrait(c, x, PAINT[shirt], c.jitter(0.3))
    lemon = x + c.jitter(3)
    y = 120 + c.jitter(2)
    sleeve = shade(PAINT[shirt], -0.16)
    for side in (-1, 1):
        c.limb([(x + side * 46, 136), (x + side * 52, 156), (lemon + side * 24, y + 2)], 20, sleeve)
    c.disc(lemon, y, 24, 16, LEMON, LEMON_EDGE)
    c.disc(lemon - 7, y - 5, 7, 4, (255, 250, 190))
    for side in (-1, 1):
        c.disc(lemon + side * 25, y + 2, 10, 13, skin)
    for k in range(2):
        c.disc(lemon + c.jitter(4), y + 22 + 10 * k, 4, 5, LEMON)
    paint = PAINT[bowl]
    c.pen.pieslice((x - 52, 108, x + 52, 196), 0, 180, fill=paint)
    c.disc(x, 152, 52, 9, shade(paint, -0.3))
    c.disc(x, 154, 38, 6, JUICE)
    return finish(c, time)


def draw_cat(rng: Random, cat: str, shirt: str, side: str, time: str) -> Canvas:
    """Draw a person with a cat in the arms."""
    c = sky(rng, time)
    d = direction(side)
    x = 96 - d * 24 + c.jitter(5)
    skin = portrait(c, x, PAINT[shirt], d * 0.5)
    cat_x = 96 + d * 40 + c.jitter(4)
    y = 108 + c.jitter(4)
    _cat(c, cat_x, y, d, cat)
    sleeve = shade(PAINT[shirt], -0.16)
    c.limb([(x - d * 44, 140), (x - d * 30, 180), (cat_x + d * 8, y + 56)], 20, sleeve)
    c.disc(cat_x + d * 10, y + 56, 11, None, skin)
    return finish(c, time)


def _cat(c: Canvas, x: float, y: float, d: int, colour: str):
    paint = PAINT[colour]
    # a darker line around black would be invisible
    line = shade(paint, 0.3 if colour == "black" else -0.35)
    c.disc(x, y + 46, 30, 42, paint, line)
    c.limb([(x + d * 22, y + 74), (x + d * 40, y + 50), (x + d * 36, y + 22)], 10, paint)
    for side in (-1, 1):
        c.shape([(x + side * 8, y - 18), (x + side * 28, y - 38), (x + side * 27, y - 4)], paint)
        inner = [(x + side * 14, y - 18), (x + side * 25, y - 30), (x + side * 24, y - 12)]
        c.shape(inner, (240, 160, 160))
    c.disc(x, y, 29, 25, paint, line)
    for side in (-1, 1):
        c.disc(x + side * 11, y - 3, 6, 7, (150, 224, 90))
        c.disc(x + side * 11, y - 3, 2.4, 6, (20, 20, 20))
    c.shape([(x - 4, y + 8), (x + 4, y + 8), (x, y + 13)], (240, 120, 130))
    for side in (-1, 1):
        c.pen.line((x + side * 8, y + 11, x + side * 30, y + 8), fill=line, width=2)
