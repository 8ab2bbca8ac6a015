"""Scenes with whole persons. d is 1 if the named side is right, -1 if it is left."""

from random import Random

from PIL import Image

from .canvas import UNITS, Canvas, Pen, gradient
from .outdoors import SIDE_LIGHT, finish, grass, ground, hills, sky
from .paint import PAINT, SHADOW, Colour, direction, shade
from .people import figure

WALLS = ((238, 228, 206), (216, 226, 214), (226, 216, 228), (214, 224, 234))
FRAME = (252, 250, 244)
FLOOR = (164, 116, 78)
STAND = (74, 66, 68)
SCREENS = ((124, 214, 240), (150, 232, 170), (250, 226, 130))
PAVEMENT = (112, 122, 136)
PUDDLE = (158, 178, 204)
HANDLE = (84, 70, 62)
MEADOW = (98, 172, 82)
PITCH = (106, 180, 86)


def draw_tv(rng: Random, shirt: str, sofa: str, side: str, time: str) -> Image.Image:
    """Draw a boy on a sofa who watches TV."""
    d = direction(side)
    wall = rng.choice(WALLS)
    # opposite to the TV is the window, and the light
    c = Canvas(rng, gradient(wall, shade(wall, -0.12)), -d * SIDE_LIGHT)
    # stripes so pale that they are no attribute
    for k in range(10):
        c.box(6 + 20 * k, 0, 14 + 20 * k, 150, shade(wall, -0.035))
    _draw_window(c, 96 - d * 40 + c.jitter(5), time)
    _draw_floor(c)
    _draw_television(c.at(96 + d * 56 + c.jitter(4), 0, d))
    boy = c.at(96 - d * 38 + c.jitter(4), 146 + c.jitter(3), d)
    seat = c.at(boy.x, 0, d)
    paint = PAINT[sofa]
    seat.soft(4, 182, 84, 12, SHADOW, 0.5)
    seat.cushion(-52, 98, 50, 172, shade(paint, -0.16), 14)
    # the seam of the back
    seat.line([(0, 104), (0, 156)], 1.5, shade(paint, -0.3))
    figure(boy, PAINT[shirt], [[(12, 18), (26, 22)]], [[(24, 4), (28, 30)]], look=1)
    # in front of the boy's legs
    seat.cushion(-56, 156, 56, 182, paint, 10)
    seat.cushion(-70, 124, -46, 182, shade(paint, -0.04), 11)
    # rain falls outside only
    return finish(c, time if time != "rain" else "day", rain=False)


def _draw_window(c: Canvas, x: float, time: str):
    view = sky(c.rng, time)
    hills(view, 176, MEADOW)
    view.box(0, 176, UNITS, UNITS, shade(MEADOW, -0.1))
    picture = finish(view, time)
    window = c.at(x)
    # light falls in around the frame
    window.soft(0, 46, 74, 66, (255, 255, 240), 0.25)
    window.box(-40, 6, 40, 80, shade(FRAME, -0.18), 3)
    window.box(-40, 6, 39, 78, FRAME, 3)
    c.image.paste(picture.resize((140, 124)), (round(x) * 2 - 70, 22))
    window.box(-1.5, 10, 1.5, 74, FRAME)
    window.box(-36, 44, 36, 46.5, FRAME)


def _draw_floor(c: Canvas):
    # a skirting board between wall and floor
    c.box(0, 150, UNITS, 156, FRAME)
    c.box(0, 155, UNITS, UNITS, FLOOR)
    for row, y in enumerate((155, 164, 175)):
        c.line([(0, y), (UNITS, y)], 1, shade(FLOOR, -0.25))
        for k in range(4):
            x = 20 + 50 * k + 24 * (row % 2)
            c.line([(x, y), (x - 3, y + 10)], 1, shade(FLOOR, -0.2))


def _draw_television(tv: Pen):
    screen = tv.canvas.rng.choice(SCREENS)
    tv.soft(0, 166, 44, 9, SHADOW, 0.5)
    tv.cushion(-34, 136, 34, 164, (150, 104, 66), 3)
    tv.box(-30, 141, -2, 159, (124, 84, 54), 2)
    tv.box(2, 141, 30, 159, (124, 84, 54), 2)
    tv.box(-6, 118, 6, 136, STAND)
    tv.box(-16, 133, 16, 137, STAND, 2)
    # the screen lights the wall
    tv.soft(-14, 92, 66, 54, screen, 0.45)
    tv.cushion(-37, 64, 37, 122, (52, 52, 60), 5)
    tv.box(-32, 69, 32, 116, screen, 2)
    # a landscape on the screen
    tv.disc(14, 80, 6, 6, (255, 250, 224))
    tv.shape([(-32, 112), (-20, 98), (-8, 96), (12, 116), (-32, 116)], shade(screen, -0.34))
    tv.shape([(-8, 116), (10, 104), (22, 103), (32, 110), (32, 116)], shade(screen, -0.48))


def draw_dancing(rng: Random, shirt: str, umbrella: str, time: str) -> Image.Image:
    """Draw a person with an umbrella who dances in the rain."""
    c = sky(rng, time)
    y = 146 + c.jitter(4)
    hills(c, y, shade(PAVEMENT, -0.1))
    ground(c, y, PAVEMENT)
    for x in (32, 104, 164):
        puddle = c.at(x + c.jitter(14), 172 + c.jitter(10))
        puddle.disc(0, 0, 22, 5, PUDDLE)
        # the sky in it
        puddle.disc(-3, -1, 12, 2.2, shade(PUDDLE, 0.3))
    d = rng.choice((-1, 1))
    person = c.at(96 - d * 14 + c.jitter(8), 124 + c.jitter(3), d)
    person.soft(8, 56, 44, 9, SHADOW, 0.5)
    person.strip([(41, -46), (46, -104)], 3.5, HANDLE)
    # one hand at the handle: the arm starts at a shoulder that leans back by 5
    arms = [[(24, -4), (43, -24)], [(-26, 6), (-42, -16)]]
    legs = [[(-8, 24), (-4, 48)], [(22, 10), (36, 32)]]
    figure(person, PAINT[shirt], arms, legs, lean=-5)
    _draw_umbrella(c.at(person.x + d * 46, person.y - 75, d), PAINT[umbrella])
    return finish(c, time, rain=True)


def _draw_umbrella(pen: Pen, paint: Colour):
    """Draw an open umbrella with the middle of its lower edge at the pen's origin."""
    pen.strip([(0, -42), (0, -50)], 3, HANDLE)
    pen.pie((-47, -44, 47, 44), 180, 360, paint)
    # panels, darker away from the light
    dark = shade(paint, -0.2)
    lit = pen.light[0] > 0
    pen.chord((-47, -44, 47, 44), *((180, 248) if lit == (pen.d > 0) else (292, 360)), dark)
    # two panels nearer to the viewer
    pen.pie((-30, -44, 30, 44), 180, 360, shade(paint, -0.06))
    pen.pie((-12, -44, 12, 44), 180, 360, shade(paint, 0.1))
    for x in (-32.5, 0, 32.5):
        pen.pie((x - 15, -5, x + 15, 6), 180, 360, shade(paint, -0.34))


def draw_fence(rng: Random, shirt: str, fence: str, time: str) -> Image.Image:
    """Draw a boy who jumps over a fence."""
    c = sky(rng, time)
    y = 138 + c.jitter(4)
    hills(c, y, MEADOW)
    grass(c, y, MEADOW)
    d = rng.choice((-1, 1))
    boy = c.at(96 + c.jitter(14), 97 + c.jitter(3), d)
    arms = [[(22, -12), (32, -30)], [(-22, -6), (-34, -24)]]
    legs = [[(26, 4), (34, 20)], [(-24, 8), (-44, 2)]]
    figure(boy, PAINT[shirt], arms, legs, lean=6, look=1)
    _draw_slats(c, PAINT[fence])
    return finish(c, time)


def _draw_slats(c: Canvas, paint: Colour):
    for y in (136, 160):
        c.box(0, y, UNITS, y + 9, shade(paint, -0.3))
    start = c.jitter(8)
    lit = 1 if c.side > 0 else -1
    for k in range(-1, 9):
        slat = c.at(start + k * 25 + 9, 0, lit)
        # the edge away from the light, the front, the edge towards it
        slat.shape([(-11, UNITS), (-11, 129), (-1, 118), (9, 129), (9, UNITS)], shade(paint, -0.28))
        slat.shape([(-8, UNITS), (-8, 128), (0, 119), (9, 128), (9, UNITS)], paint)
        slat.shape([(6, UNITS), (6, 126), (9, 129), (9, UNITS)], shade(paint, 0.25))
        for y in (141, 165):
            slat.circle(0, y, 1.3, shade(paint, -0.45))


def draw_ball(rng: Random, shirt: str, ball: str, side: str, time: str) -> Image.Image:
    """Draw a boy who kicks a ball."""
    c = sky(rng, time)
    y = 132 + c.jitter(4)
    hills(c, y, PITCH)
    grass(c, y, PITCH)
    d = direction(side)
    boy = c.at(96 - d * 34 + c.jitter(6), 126 + c.jitter(3), d)
    boy.soft(2, 54, 42, 9, SHADOW, 0.55)
    arms = [[(20, 14), (30, -2)], [(-22, 10), (-34, -4)]]
    legs = [[(-8, 24), (-10, 48)], [(22, 12), (44, 20)]]
    figure(boy, PAINT[shirt], arms, legs, lean=-6, look=1)
    ball_pen = c.at(96 + d * 58 + c.jitter(6), 134 + c.jitter(8))
    # on the ground below, because the ball flies
    c.soft(ball_pen.x, 182, 30, 8, SHADOW, 0.5)
    ball_pen.ball(0, 0, 26, 26, PAINT[ball])
    # a seam and a gleam
    ball_pen.arc((-44, -22, 6, 22), -62, 62, shade(PAINT[ball], -0.35), 1.6)
    ball_pen.soft(ball_pen.light[0] * 16, -13, 9, 8, (255, 255, 255), 0.8)
    return finish(c, time)
