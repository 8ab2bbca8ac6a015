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
HANDLE = (70, 60, 56)
MEADOW = (96, 170, 80)
PITCH = (104, 178, 84)
SHADOW = (72, 132, 62)


def draw_tv(rng: Random, shirt: str, sofa: str, side: str, time: str) -> Canvas:
    """Draw a boy on a sofa who watches TV."""
    wall = rng.choice(WALLS)
    c = Canvas(rng, gradient(wall, shade(wall, -0.1)))
    d = direction(side)
    view = sky(rng, time)
    if time == "rain":
        finish(view, "rain")
    # opposite to the TV
    window = c.at(96 - d * 38 + c.jitter(5))
    window.box(-40, 6, 40, 78, FRAME, 4)
    c.image.paste(view.image.resize((70, 62)), (round(window.x) - 35, 11))
    window.box(-2, 10, 2, 74, FRAME)
    c.box(0, 154, 192, 192, FLOOR)
    tv = c.at(96 + d * 56 + c.jitter(4))
    tv.box(-7, 116, 7, 158, STAND)
    tv.box(-30, 154, 30, 164, STAND, 4)
    tv.box(-36, 66, 36, 122, (36, 36, 42), 6)
    tv.box(-30, 72, 30, 116, rng.choice(SCREENS), 3)
    boy = c.at(96 - d * 40 + c.jitter(4), 146 + c.jitter(3), d)
    seat = c.at(boy.x, 0, d)
    paint = PAINT[sofa]
    seat.box(-50, 96, 50, 170, shade(paint, -0.22), 14)
    figure(boy, PAINT[shirt], [[(12, 18), (26, 22)]], [[(24, 4), (28, 30)]], look=1)
    # in front of the boy's legs
    seat.box(-56, 156, 56, 182, paint, 10)
    seat.box(-70, 122, -46, 182, shade(paint, -0.1), 8)
    # rain falls outside only
    return finish(c, time if time != "rain" else "day")


def draw_dancing(rng: Random, shirt: str, umbrella: str, time: str) -> Canvas:
    """Draw a person with an umbrella who dances in the rain."""
    c = sky(rng, time)
    ground(c, 148 + c.jitter(4), PAVEMENT)
    for x in (36, 110, 160):
        c.disc(x + c.jitter(14), 172 + c.jitter(8), 22, 5, PUDDLE)
    d = rng.choice((-1, 1))
    person = c.at(96 - d * 14 + c.jitter(8), 124 + c.jitter(3), d)
    person.limb([(40, -58), (44, -84)], 4, HANDLE)
    # one hand at the handle: the arm starts at a shoulder that leans back by 5
    arms = [[(24, -8), (40, -24)], [(-26, 6), (-42, -16)]]
    legs = [[(-8, 24), (-4, 48)], [(22, 10), (36, 32)]]
    figure(person, PAINT[shirt], arms, legs, lean=-5)
    paint = PAINT[umbrella]
    person.half_disc((-2, -112, 90, -26), paint)
    for x in (14, 44, 74):
        person.half_disc((x - 16, -78, x + 16, -62), shade(paint, -0.25))
    return finish(c, time, rain=True)


def draw_fence(rng: Random, shirt: str, fence: str, time: str) -> Canvas:
    """Draw a boy who jumps over a fence."""
    c = sky(rng, time)
    ground(c, 138 + c.jitter(4), MEADOW)
    d = rng.choice((-1, 1))
    boy = c.at(96 + c.jitter(14), 92 + c.jitter(4), d)
    arms = [[(22, -12), (32, -30)], [(-22, -6), (-34, -24)]]
    legs = [[(26, 4), (34, 20)], [(-24, 8), (-44, 2)]]
    figure(boy, PAINT[shirt], arms, legs, lean=6, look=1)
    paint = PAINT[fence]
    for y in (136, 160):
        c.box(0, y, 192, y + 9, shade(paint, -0.3))
    start = c.jitter(8)
    for k in range(-1, 9):
        slat = c.at(start + k * 25)
        slat.shape([(0, 186), (0, 128), (9, 118), (18, 128), (18, 186)], paint)
    return finish(c, time)


def draw_ball(rng: Random, shirt: str, ball: str, side: str, time: str) -> Canvas:
    """Draw a boy who kicks a ball."""
    c = sky(rng, time)
    ground(c, 132 + c.jitter(4), PITCH)
    d = direction(side)
    boy = c.at(96 - d * 34 + c.jitter(6), 126 + c.jitter(3), d)
    boy.disc(0, 52, 32, 6, SHADOW)
    arms = [[(20, 14), (30, -2)], [(-22, 10), (-34, -4)]]
    legs = [[(-8, 24), (-10, 48)], [(22, 12), (44, 20)]]
    figure(boy, PAINT[shirt], arms, legs, lean=-6, look=1)
    x = 96 + d * 58 + c.jitter(6)
    y = 134 + c.jitter(8)
    # on the ground below, because the ball flies
    c.disc(x, 182, 24, 5, SHADOW)
    c.ball(x, y, 26, PAINT[ball])
    return finish(c, time)
