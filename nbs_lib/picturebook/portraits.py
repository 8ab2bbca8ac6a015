"""Scenes with head and shoulders. d is 1 if the named side is right, -1 if it is left."""

from random import Random

from .canvas import PAINT, Canvas, Pen, direction, finish, shade, sky
from .people import portrait

GLASS = (226, 240, 248)
STRAW = (250, 90, 90)
LEMON = (255, 232, 60)
LEMON_EDGE = (196, 168, 20)
HIGHLIGHT = (255, 250, 190)
JUICE = (250, 240, 150)
EAR = (240, 160, 160)
IRIS = (150, 224, 90)
PUPIL = (20, 20, 20)
NOSE = (240, 120, 130)


def draw_soda(rng: Random, soda: str, shirt: str, side: str, time: str) -> Canvas:
    """Draw a person with a glass of soda."""
    c = sky(rng, time)
    d = direction(side)
    person = c.at(96 - d * 26 + c.jitter(5), 0, d)
    skin = portrait(c, person.x, d, PAINT[shirt], 0.6)
    glass = c.at(96 + d * 58 + c.jitter(4), 96 + c.jitter(4))
    paint = PAINT[soda]
    hand = d * (glass.x - person.x)
    person.limb([(42, 142), (54, 184), (hand, 158)], 24, shade(PAINT[shirt], -0.14))
    glass.limb([(6, -10), (16, -54)], 6, STRAW)
    glass.shape([(-26, -34), (26, -34), (20, 50), (-20, 50)], GLASS)
    glass.shape([(-22, -20), (22, -20), (17, 46), (-17, 46)], paint)
    for _ in range(5):
        glass.circle(c.jitter(12), 12 + c.jitter(24), 3, shade(paint, 0.5))
    # the hand covers the glass, so it is drawn last
    glass.limb([(-16, 58), (16, 54)], 20, skin)
    return finish(c, time)


def draw_lemon(rng: Random, shirt: str, bowl: str, time: str) -> Canvas:
    """Draw a person who squeezes a lemon over a bowl."""
    c = sky(rng, time)
    person = c.at(96 + c.jitter(6))
    skin = portrait(c, person.x, 1, PAINT[shirt], c.jitter(0.3))
    lemon = c.at(person.x + c.jitter(3), 120 + c.jitter(2))
    for d in (-1, 1):
        sleeve = c.at(person.x, 0, d)
        hand = d * (lemon.x - person.x) + 24
        points = [(46, 136), (52, 156), (hand, lemon.y + 2)]
        sleeve.limb(points, 20, shade(PAINT[shirt], -0.16))
    lemon.disc(0, 0, 24, 16, LEMON, LEMON_EDGE)
    lemon.disc(-7, -5, 7, 4, HIGHLIGHT)
    for x in (-25, 25):
        lemon.disc(x, 2, 10, 13, skin)
    # drops of juice
    for y in (22, 32):
        lemon.disc(c.jitter(4), y, 4, 5, LEMON)
    paint = PAINT[bowl]
    person.half_disc((-52, 108, 52, 196), paint, lower=True)
    person.disc(0, 152, 52, 9, shade(paint, -0.3))
    person.disc(0, 154, 38, 6, JUICE)
    return finish(c, time)


def draw_cat(rng: Random, cat: str, shirt: str, side: str, time: str) -> Canvas:
    """Draw a person with a cat in the arms."""
    c = sky(rng, time)
    d = direction(side)
    person = c.at(96 - d * 24 + c.jitter(5), 0, d)
    skin = portrait(c, person.x, d, PAINT[shirt], 0.5)
    pen = c.at(96 + d * 40 + c.jitter(4), 108 + c.jitter(4), d)
    _draw_cat(pen, cat)
    # the arm is in front of the cat
    hand = d * (pen.x - person.x) + 8
    sleeve = shade(PAINT[shirt], -0.16)
    person.limb([(-44, 140), (-30, 180), (hand, pen.y + 56)], 20, sleeve)
    pen.circle(10, 56, 11, skin)
    return finish(c, time)


def _draw_cat(pen: Pen, colour: str):
    paint = PAINT[colour]
    # a darker line around black would be invisible
    line = shade(paint, 0.3 if colour == "black" else -0.35)
    pen.disc(0, 46, 30, 42, paint, line)
    pen.limb([(22, 74), (40, 50), (36, 22)], 10, paint)
    sides = [pen, pen.canvas.at(pen.x, pen.y, -pen.d)]
    for half in sides:
        half.shape([(8, -18), (28, -38), (27, -4)], paint)
        half.shape([(14, -18), (25, -30), (24, -12)], EAR)
    pen.disc(0, 0, 29, 25, paint, line)
    for half in sides:
        half.disc(11, -3, 6, 7, IRIS)
        half.disc(11, -3, 2.4, 6, PUPIL)
    pen.shape([(-4, 8), (4, 8), (0, 13)], NOSE)
    for half in sides:
        whisker = [half.to_canvas(8, 11), half.to_canvas(30, 8)]
        pen.canvas.draw.line(whisker, fill=line, width=2)
