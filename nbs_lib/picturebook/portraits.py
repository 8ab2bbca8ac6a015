"""Scenes with head and shoulders. d is 1 if the named side is right, -1 if it is left."""

from random import Random

from PIL import Image

from .canvas import Pen
from .outdoors import finish, hills, sky
from .paint import PAINT, SHADOW, Colour, direction, shade
from .people import portrait

MEADOW = (104, 168, 96)
GLASS = (222, 238, 248)
STRAW = (250, 96, 96)
LEMON = (255, 230, 62)
LEMON_EDGE = (226, 188, 34)
HIGHLIGHT = (255, 252, 214)
JUICE = (250, 238, 150)
EAR = (244, 164, 164)
IRIS = (160, 222, 96)
PUPIL = (22, 20, 24)
NOSE = (242, 128, 138)


def draw_soda(rng: Random, soda: str, shirt: str, side: str, time: str) -> Image.Image:
    """Draw a person with a glass of soda."""
    c = sky(rng, time)
    hills(c, 150, MEADOW)
    c.box(0, 150, 192, 192, shade(MEADOW, -0.08))
    d = direction(side)
    person = c.at(96 - d * 26 + c.jitter(5), 0, d)
    skin = portrait(c, person.x, d, PAINT[shirt], 0.6)
    glass = c.at(96 + d * 58 + c.jitter(4), 96 + c.jitter(4))
    hand = d * (glass.x - person.x)
    person.limb([(42, 142), (54, 184), (hand, 158)], 24, shade(PAINT[shirt], -0.08))
    _draw_glass(glass, PAINT[soda])
    # the hand covers the glass, so it is drawn last
    for y in (44, 53, 62):
        glass.limb([(-17 + abs(y - 53) * 0.3, y), (15, y - 1)], 10, skin)
    return finish(c, time)


def _draw_glass(glass: Pen, paint: Colour):
    rng = glass.canvas.rng
    glass.strip([(5, -8), (15, -56)], 5, STRAW)
    # where the straw shows through the glass
    glass.strip([(6, -24), (8, -34)], 5, shade(STRAW, 0.6))
    glass.shape([(-26, -34), (26, -34), (20, 50), (-20, 50)], GLASS)
    glass.shape([(-23, -20), (23, -20), (18, 47), (-18, 47)], paint)
    # darker away from the light, a gleam towards it
    lit = 1 if glass.light[0] > 0 else -1
    half = glass.canvas.at(glass.x, glass.y, lit)
    half.shape([(-23, -20), (-12, -20), (-9, 47), (-18, 47)], shade(paint, -0.2))
    half.shape([(14, -30), (19, -30), (15, 40), (11, 40)], shade(paint, 0.45))
    glass.disc(0, -20, 23, 4.5, shade(paint, 0.25))
    for _ in range(6):
        glass.circle(
            rng.uniform(-9, 9), rng.uniform(-10, 34), rng.uniform(1.6, 2.8), shade(paint, 0.5)
        )
    glass.arc((-26, -39, 26, -29), 0, 360, shade(GLASS, -0.1), 1.4)


def draw_lemon(rng: Random, shirt: str, bowl: str, time: str) -> Image.Image:
    """Draw a person who squeezes a lemon over a bowl."""
    c = sky(rng, time)
    hills(c, 150, MEADOW)
    c.box(0, 150, 192, 192, shade(MEADOW, -0.08))
    person = c.at(96 + c.jitter(6))
    skin = portrait(c, person.x, 1, PAINT[shirt], c.jitter(0.3))
    lemon = c.at(person.x + c.jitter(3), 120 + c.jitter(2))
    for d in (-1, 1):
        sleeve = c.at(person.x, 0, d)
        hand = d * (lemon.x - person.x) + 24
        points = [(46, 136), (52, 156), (hand, lemon.y + 2)]
        sleeve.limb(points, 20, shade(PAINT[shirt], -0.12))
    _draw_bowl(person, PAINT[bowl])
    lemon.ball(0, 0, 25, 16, LEMON)
    lemon.arc((-25, -16, 25, 16), 0, 360, LEMON_EDGE, 1.6)
    lemon.soft(lemon.light[0] * 12, -6, 10, 6, HIGHLIGHT, 0.9)
    for x in (-25, 25):
        lemon.ball(x, 2, 10, 13, skin)
    # drops of juice
    for y in (23, 32):
        lemon.ball(c.jitter(4), y, 3.4, 4.4, LEMON)
    return finish(c, time)


def _draw_bowl(pen: Pen, paint: Colour):
    # darker away from the light, in three steps towards it
    for width, light in ((52, -0.22), (47, -0.1), (38, 0.0), (22, 0.09)):
        x = pen.light[0] * (52 - width) * 0.9
        pen.pie(
            (x - width, 154 - 0.88 * width, x + width, 154 + 0.88 * width),
            0,
            180,
            shade(paint, light),
        )
    pen.disc(0, 154, 52, 9.5, shade(paint, 0.2))
    pen.disc(0, 154, 48, 7.5, shade(paint, -0.32))
    pen.disc(0, 156, 38, 5, JUICE)


def draw_cat(rng: Random, cat: str, shirt: str, side: str, time: str) -> Image.Image:
    """Draw a person with a cat in the arms."""
    c = sky(rng, time)
    hills(c, 150, MEADOW)
    c.box(0, 150, 192, 192, shade(MEADOW, -0.08))
    d = direction(side)
    person = c.at(96 - d * 24 + c.jitter(5), 0, d)
    skin = portrait(c, person.x, d, PAINT[shirt], 0.5)
    pen = c.at(96 + d * 40 + c.jitter(4), 108 + c.jitter(4), d)
    pen.soft(-8, 40, 46, 54, SHADOW, 0.45)
    _draw_cat(pen, PAINT[cat], 0.32 if cat == "black" else -0.3)
    # the arm is in front of the cat
    hand = d * (pen.x - person.x) + 8
    sleeve = shade(PAINT[shirt], -0.1)
    person.limb([(-44, 140), (-30, 180), (hand, pen.y + 56)], 20, sleeve)
    pen.ball(10, 56, 11, 11, skin)
    return finish(c, time)


def _draw_cat(pen: Pen, paint: Colour, line_light: float):
    line = shade(paint, line_light)
    pen.limb([(22, 74), (40, 50), (36, 22)], 10, paint)
    pen.disc(0, 46, 31, 43, line)
    pen.ball(0, 46, 30, 42, paint)
    # a paler belly
    pen.disc(0, 40, 13, 20, shade(paint, 0.16))
    halves = [pen, pen.canvas.at(pen.x, pen.y, -pen.d)]
    for half in halves:
        half.shape([(6, -18), (28, -40), (28, -2)], line)
        half.shape([(9, -17), (27, -36), (26, -4)], paint)
        half.shape([(14, -18), (25, -30), (24, -12)], EAR)
    pen.disc(0, 0, 30, 26, line)
    pen.ball(0, 0, 29, 25, paint)
    # stripes on the forehead
    for x in (-6, 0, 6):
        pen.strip([(x, -21), (x * 0.8, -13)], 2.2, line)
    for half in halves:
        half.disc(11, -2, 6.5, 7.5, IRIS)
        half.disc(11, -2, 2.8, 6.5, PUPIL)
        half.circle(11 - half.d * 2, -5, 1.7, (255, 255, 255))
        # a muzzle, paler than the coat
        half.disc(6, 12, 8, 6, shade(paint, 0.4 if line_light < 0 else 0.2))
        for y in (9, 13):
            half.line([(12, 11), (31, y - 2)], 0.9, line)
    pen.shape([(-4, 6), (4, 6), (0, 11)], NOSE)
    pen.line([(0, 10), (0, 14)], 1.2, line)
