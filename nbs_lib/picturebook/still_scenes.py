"""Scenes without persons. d is 1 if the named side is right, -1 if it is left."""

from random import Random

from PIL import Image

from .canvas import UNITS, Canvas, Pen, gradient
from .outdoors import SIDE_LIGHT, finish, grass, sky
from .paint import PAINT, SHADOW, Colour, direction, mix, shade

SEA = (34, 116, 182)
FAR_SEA = (92, 166, 208)
HULL = (122, 72, 42)
FOAM = (228, 244, 252)
SAND = (242, 216, 154)
WOOD = (138, 102, 68)
ROAD = (98, 98, 108)
MARKING = (250, 246, 222)
TYRE = (34, 34, 38)
GLASS = (206, 232, 246)
LAMP = (255, 250, 206)
TRUNK = (112, 74, 46)
LEAVES = (26, 98, 58)
MEADOW = (116, 184, 92)
TREES = ((66, 84), (38, 104), (80, 122), (56, 146), (84, 168))
CREAM = (255, 247, 234)
TENNIS = (206, 230, 54)
SEAM = (250, 252, 240)
ROW = [(-36, 0), (0, 3), (36, 0)]
# Places of tennis balls on the cake by their number.
BALLS = {
    1: [(0, 0)],
    2: [(-19, 0), (19, 0)],
    3: ROW,
    4: [(0, -30), *ROW],
    5: [(-19, -30), (19, -30), *ROW],
}


def draw_beach(rng: Random, parasol: str, sail: str, side: str, time: str) -> Image.Image:
    """Draw a beach with waves, a boat and a parasol."""
    c = sky(rng, time)
    for step in range(8):
        c.box(0, 74 + 9.5 * step, UNITS, 160, mix(FAR_SEA, SEA, step / 7))
    # the light's glitter at the horizon
    c.soft(96 + c.side * 90, 82, 80, 26, (255, 246, 214), 0.35)
    d = direction(side)
    _draw_boat(c.at(96 - d * 44 + c.jitter(12)), PAINT[sail])
    for row, y in enumerate((100, 114, 129)):
        shift = c.jitter(12)
        for k in range(-1, 6):
            # each row starts further to the right, so the waves do not line up
            wave = c.at(shift + k * 42 + row * 17, y)
            wave.arc((0, -8, 42, 14), 205, 335, FOAM, 2 + row)
    _draw_shore(c)
    _draw_parasol(c.at(96 + d * 48 + c.jitter(6)), PAINT[parasol])
    return finish(c, time)


def _draw_boat(boat: Pen, paint: Colour):
    # the boat's shadow on the water
    boat.soft(2, 98, 46, 8, SHADOW, 0.45)
    boat.strip([(0, 26), (0, 84)], 2.2, WOOD)
    lit = 1 if boat.light[0] > 0 else -1
    boat.shape([(2, 28), (2, 78), (38, 78)], paint)
    boat.shape([(2, 28), (2, 78), (14, 78)], shade(paint, -0.14 if lit > 0 else 0.14))
    boat.shape([(-2, 36), (-2, 78), (-24, 78)], shade(paint, -0.2))
    boat.shape([(-32, 82), (38, 82), (27, 97), (-22, 97)], HULL)
    boat.shape([(-32, 82), (38, 82), (36, 86), (-30, 86)], shade(HULL, 0.35))


def _draw_shore(c: Canvas):
    edge = [(0, 146), (60, 138), (130, 148), (192, 140)]
    corners = [(192, 192), (0, 192)]
    for down, colour in ((-4, FOAM), (0, shade(SAND, -0.22)), (5, SAND)):
        c.shape([(x, y + down) for x, y in edge] + corners, colour)
    for _ in range(26):
        x, y = c.rng.uniform(2, 190), c.rng.uniform(156, 190)
        c.disc(x, y, 1.3, 0.8, shade(SAND, c.rng.choice((-0.14, 0.35))))


def _draw_parasol(pole: Pen, paint: Colour):
    pole.soft(-pole.light[0] * 16, 184, 46, 9, SHADOW, 0.5)
    pole.strip([(0, 110), (0, 182)], 4.5, WOOD)
    # panels, darker away from the light
    pole.pie((-46, 84, 46, 176), 180, 360, paint)
    for left, right in ((-46, -16), (16, 46)):
        lit = (left + right) * pole.light[0] > 0
        pole.pie((left, 90, right, 170), 180, 360, shade(paint, 0.14 if lit else -0.26))
    pole.pie((-17, 84, 17, 176), 180, 360, shade(paint, -0.08))
    for x in (-37, -18.5, 0, 18.5, 37):
        pole.pie((x - 9, 125, x + 9, 136), 0, 180, shade(paint, -0.18))
    pole.circle(0, 84, 2.6, WOOD)


def draw_road(rng: Random, car: str, count: str, side: str, time: str) -> Image.Image:
    """Draw a road down a hill with a car and trees."""
    c = sky(rng, time)
    d = direction(side)
    c.ball(96 + d * 60, 150, 150, 82, (84, 150, 84))
    c.ball(96 - d * 70, 156, 130, 70, (112, 176, 90))
    grass(c, 140, MEADOW)
    top = 96 - d * 4 + c.jitter(4)
    bottom = 96 - d * 30 + c.jitter(4)
    # a sandy edge on both sides
    for wide, colour in ((4, shade(SAND, -0.1)), (0, ROAD)):
        left, right = bottom - 52 - wide, bottom + 52 + wide
        c.shape([(top - 9, 72), (top + 9, 72), (right, UNITS), (left, UNITS)], colour)
    # markings at shares of the way down, larger near the viewer
    for t in (0.08, 0.3, 0.86):
        marking = c.at(top + (bottom - top) * t, 72 + 120 * t)
        half = 1 + 3 * t
        marking.box(-half, 0, half, 4 + 10 * t, MARKING)
    _draw_car(c.at(top + (bottom - top) * 0.6, 146 + c.jitter(4)), PAINT[car])
    # from the horizon to the viewer, so that near trees cover far ones
    for x, y in TREES[: int(count)]:
        _draw_tree(c.at(96 + d * x + c.jitter(3), y + c.jitter(2)))
    return finish(c, time)


def _draw_tree(tree: Pen):
    lit = tree.canvas.at(tree.x, tree.y, 1 if tree.light[0] > 0 else -1)
    lit.soft(-9, 10, 20, 5, SHADOW, 0.5)
    lit.box(-3, 0, 3, 11, TRUNK)
    lit.box(1, 0, 3, 11, shade(TRUNK, 0.2))
    for y, width in ((2, 16), (-9, 13), (-20, 9.5)):
        lit.shape([(-width, y), (0, y - 18), (width, y)], LEAVES)
        lit.shape([(width * 0.1, y), (0, y - 18), (width, y)], shade(LEAVES, 0.16))
        lit.disc(0, y, width * 0.9, 2, shade(LEAVES, -0.2))


def _draw_car(pen: Pen, paint: Colour):
    pen.soft(0, 18, 44, 9, SHADOW, 0.6)
    for wheel in (-22, 22):
        pen.box(wheel - 6, 4, wheel + 6, 20, TYRE, 3)
    pen.cushion(-22, -32, 22, 0, shade(paint, -0.08), 9)
    pen.box(-17, -27, 17, -10, shade(GLASS, -0.25), 4)
    pen.shape([(-8, -27), (6, -27), (-2, -10), (-15, -10)], GLASS)
    pen.cushion(-31, -12, 31, 12, paint, 8)
    # radiator and number plate
    pen.box(-14, -1, 14, 5, shade(paint, -0.45), 2)
    pen.box(-9, 7, 9, 11, (244, 244, 236), 1)
    for lamp in (-22, 22):
        pen.circle(lamp, 1, 5.4, shade(paint, -0.4))
        pen.circle(lamp, 1, 4.4, LAMP)


def draw_cake(rng: Random, count: str, cake: str, table: str) -> Image.Image:
    """Draw tennis balls on top of a cake."""
    side = rng.choice((-SIDE_LIGHT, SIDE_LIGHT))
    c = Canvas(rng, gradient((232, 234, 242), (196, 200, 216)), side)
    c.soft(96 + side * 120, 40, 110, 90, (255, 252, 236), 0.6)
    _draw_table(c, PAINT[table])
    pen = c.at(96 + c.jitter(8))
    w = 66 + c.jitter(3)
    pen.soft(-pen.light[0] * 22, 164, w + 30, 20, SHADOW, 0.45)
    _draw_layers(pen, w, PAINT[cake])
    for x, y in BALLS[int(count)]:
        ball = c.at(pen.x + x + c.jitter(1.5), 82 + y + c.jitter(1.5))
        # each ball's shadow on what lies beneath it
        ball.soft(0, 15, 19, 7, SHADOW, 0.45)
        ball.ball(0, 0, 18, 18, TENNIS)
        ball.arc((-33, -18, -4, 18), -50, 50, SEAM, 1.8)
        ball.arc((4, -18, 33, 18), 130, 230, SEAM, 1.8)
    return finish(c, "day")


def _draw_table(c: Canvas, paint: Colour):
    c.box(0, 146, UNITS, UNITS, shade(paint, -0.24))
    c.disc(96, 148, 116, 19, paint)
    c.disc(96 + c.side * 40, 146, 60, 9, shade(paint, 0.1))
    # the folds of the cloth
    for k in range(9):
        x = 12 + k * 22
        c.shape([(x - 5, UNITS), (x, 164), (x + 5, UNITS)], shade(paint, -0.33))


def _draw_layers(pen: Pen, w: float, paint: Colour):
    pen.disc(0, 160, w + 14, 16, (182, 186, 200))
    pen.disc(0, 157, w + 14, 15, (250, 250, 252))
    # columns, from dark to light and back to a little darker, as on a drum
    lit = pen.canvas.at(pen.x, 0, 1 if pen.light[0] > 0 else -1)
    for k in range(44):
        x = -1 + k / 22
        light = 0.1 - 0.16 * (x - 0.45) ** 2
        left = x * w
        y = 156 + 11 * (1 - min(1.0, abs(x + 0.02)) ** 2) ** 0.5
        lit.box(left, 98, left + w / 22, y, shade(paint, light))
        lit.box(left, y - 38, left + w / 22, y - 31, shade(paint, light - 0.3))
    c = pen.canvas
    # the cream runs down in nine drops
    for k in range(9):
        pen.disc(8 - w + k * (w - 8) / 4, 106, 9.6, 12 + c.jitter(3), shade(CREAM, -0.1))
        pen.disc(8 - w + k * (w - 8) / 4 + pen.light[0], 105, 8.4, 11, CREAM)
    # the cream's edge, and its top
    pen.disc(0, 99, w, 14, shade(CREAM, -0.12))
    pen.disc(0, 97, w - 1, 12.5, CREAM)
