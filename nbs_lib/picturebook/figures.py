"""Scenes with whole persons. d is 1 if the named side is right, -1 if it is left."""

from random import Random

from .canvas import PAINT, Canvas, direction, finish, gradient, ground, shade, sky
from .people import figure

WALLS = ((236, 224, 200), (214, 222, 210), (224, 212, 224))
FRAME = (250, 250, 250)
FLOOR = (150, 104, 70)
STAND = (60, 56, 60)
SCREENS = ((120, 220, 240), (160, 240, 170), (246, 250, 190))
PAVEMENT = (104, 116, 128)
PUDDLE = (150, 172, 196)
MEADOW = (96, 170, 80)
PITCH = (104, 178, 84)
SHADOW = (72, 132, 62)


def draw_tv(rng: Random, shirt: str, sofa: str, side: str, time: str) -> Canvas:
    """Draw a boy on a sofa who watches TV."""
    wall = rng.choice(WALLS)
    c = Canvas(rng, gradient(wall, shade(wall, -0.1)))
    d = direction(side)
    window = sky(rng, time)
    if time == "rain":
        finish(window, "rain")
    x = 96 - d * 38 + c.jitter(5)
    c.box(x - 40, 6, x + 40, 78, FRAME, 4)
    c.image.paste(window.image.resize((70, 62)), (round(x) - 35, 11))
    c.box(x - 2, 10, x + 2, 74, FRAME)
    c.box(0, 154, 192, 192, FLOOR)
    _television(c, 96 + d * 56 + c.jitter(4))
    x = 96 - d * 40 + c.jitter(4)
    y = 146 + c.jitter(3)
    paint = PAINT[sofa]
    c.box(x - 50, 96, x + 50, 170, shade(paint, -0.22), 14)
    arms = [[(d * 12, 18), (d * 26, 22)]]
    legs = [[(d * 24, 4), (d * 28, 30)]]
    figure(c, x, y, PAINT[shirt], arms, legs, look=d)
    c.box(x - 56, 156, x + 56, 182, paint, 10)
    armrest = x - d * 58
    c.box(armrest - 12, 122, armrest + 12, 182, shade(paint, -0.1), 8)
    # rain falls outside only
    return finish(c, time if time != "rain" else "day")


def _television(c: Canvas, x: float):
    c.box(x - 7, 116, x + 7, 158, STAND)
    c.box(x - 30, 154, x + 30, 164, STAND, 4)
    c.box(x - 36, 66, x + 36, 122, (36, 36, 42), 6)
    c.box(x - 30, 72, x + 30, 116, c.rng.choice(SCREENS), 3)


def draw_dancing(rng: Random, shirt: str, umbrella: str, time: str) -> Canvas:
    """Draw a person with an umbrella who dances in the rain."""
    c = sky(rng, time)
    ground(c, 148 + c.jitter(4), PAVEMENT)
    for x in (36, 110, 160):
        c.disc(x + c.jitter(14), 172 + c.jitter(8), 22, 5, PUDDLE)
    d = rng.choice((-1, 1))
    x = 96 - d * 14 + c.jitter(8)
    y = 124 + c.jitter(3)
    hand_x = x + d * 40
    hand_y = y - 58
    c.limb([(hand_x, hand_y), (hand_x + d * 4, hand_y - 26)], 4, (70, 60, 56))
    # a figure's arms start 34 above its hips
    arms = [[(d * 24, -8), (hand_x - x, hand_y - y + 34)], [(-d * 26, 6), (-d * 42, -16)]]
    legs = [[(-d * 8, 24), (-d * 4, 48)], [(d * 22, 10), (d * 36, 32)]]
    figure(c, x, y, PAINT[shirt], arms, legs, lean=-d * 5)
    x = hand_x + d * 4
    y = hand_y - 8
    paint = PAINT[umbrella]
    c.pen.pieslice((x - 46, y - 46, x + 46, y + 40), 180, 360, fill=paint)
    for shift in (-30, 0, 30):
        edges = (x + shift - 16, y - 12, x + shift + 16, y + 4)
        c.pen.pieslice(edges, 180, 360, fill=shade(paint, -0.25))
    return finish(c, time, rain=True)


def draw_fence(rng: Random, shirt: str, fence: str, time: str) -> Canvas:
    """Draw a boy who jumps over a fence."""
    c = sky(rng, time)
    ground(c, 138 + c.jitter(4), MEADOW)
    d = rng.choice((-1, 1))
    x = 96 + c.jitter(14)
    y = 92 + c.jitter(4)
    arms = [[(d * 22, -12), (d * 32, -30)], [(-d * 22, -6), (-d * 34, -24)]]
    legs = [[(d * 26, 4), (d * 34, 20)], [(-d * 24, 8), (-d * 44, 2)]]
    figure(c, x, y, PAINT[shirt], arms, legs, lean=d * 6, look=d)
    paint = PAINT[fence]
    for y in (136, 160):
        c.box(0, y, 192, y + 9, shade(paint, -0.3))
    start = c.jitter(8)
    for k in range(-1, 9):
        x = start + k * 25
        c.shape([(x, 186), (x, 128), (x + 9, 118), (x + 18, 128), (x + 18, 186)], paint)
    return finish(c, time)


def draw_ball(rng: Random, shirt: str, ball: str, side: str, time: str) -> Canvas:
    """Draw a boy who kicks a ball."""
    c = sky(rng, time)
    ground(c, 132 + c.jitter(4), PITCH)
    d = direction(side)
    x = 96 - d * 34 + c.jitter(6)
    y = 126 + c.jitter(3)
    c.disc(x, y + 52, 32, 6, SHADOW)
    arms = [[(d * 20, 14), (d * 30, -2)], [(-d * 22, 10), (-d * 34, -4)]]
    legs = [[(-d * 8, 24), (-d * 10, 48)], [(d * 22, 12), (d * 44, 20)]]
    figure(c, x, y, PAINT[shirt], arms, legs, lean=-d * 6, look=d)
    x = 96 + d * 58 + c.jitter(6)
    y = 134 + c.jitter(8)
    c.disc(x, 182, 24, 5, SHADOW)
    c.ball(x, y, 26, PAINT[ball])
    return finish(c, time)
