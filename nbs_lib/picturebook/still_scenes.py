"""Scenes without persons. d is 1 if the named side is right, -1 if it is left."""

from random import Random

from .canvas import PAINT, Canvas, Pen, direction, finish, gradient, ground, shade, sky

SEA = (32, 110, 176)
HULL = (110, 62, 34)
FOAM = (222, 242, 252)
SAND = (240, 214, 150)
SAND_SHADOW = (206, 178, 116)
WOOD = (120, 90, 60)
ROAD = (92, 92, 100)
MARKING = (250, 246, 220)
TYRE = (30, 30, 34)
GLASS = (206, 232, 246)
LAMP = (255, 250, 200)
TRUNK = (104, 68, 40)
LEAVES = (20, 88, 52)
TREES = ((66, 84), (38, 104), (80, 122), (56, 146), (84, 168))
CREAM = (255, 246, 232)
TENNIS = (206, 232, 52)
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


def draw_beach(rng: Random, parasol: str, sail: str, side: str, time: str) -> Canvas:
    """Draw a beach with waves, a boat and a parasol."""
    c = sky(rng, time)
    c.box(0, 74, 192, 150, SEA)
    d = direction(side)
    boat = c.at(96 - d * 44 + c.jitter(12))
    paint = PAINT[sail]
    boat.shape([(2, 28), (2, 78), (38, 78)], paint)
    boat.shape([(-2, 36), (-2, 78), (-24, 78)], shade(paint, -0.2))
    boat.shape([(-32, 82), (38, 82), (26, 96), (-22, 96)], HULL)
    for row, y in enumerate((98, 112, 128)):
        shift = c.jitter(12)
        for k in range(-1, 6):
            # each row starts further to the right, so the waves do not line up
            wave = c.at(shift + k * 42 + row * 17, y)
            wave.arc((0, -8, 42, 14), 200, 340, FOAM, 5)
    c.shape([(0, 146), (60, 138), (130, 148), (192, 140), (192, 192), (0, 192)], SAND)
    pole = c.at(96 + d * 48 + c.jitter(6))
    paint = PAINT[parasol]
    pole.disc(0, 184, 40, 6, SAND_SHADOW)
    pole.limb([(0, 110), (0, 182)], 5, WOOD)
    pole.half_disc((-46, 84, 46, 176), paint)
    pole.half_disc((-18, 84, 18, 176), shade(paint, -0.22))
    return finish(c, time)


def draw_road(rng: Random, car: str, count: str, side: str, time: str) -> Canvas:
    """Draw a road down a hill with a car and trees."""
    c = sky(rng, time)
    d = direction(side)
    c.disc(96 + d * 60, 150, 150, 82, (78, 146, 78))
    c.disc(96 - d * 70, 156, 130, 70, (110, 176, 86))
    ground(c, 140, (120, 184, 92))
    top = 96 - d * 4 + c.jitter(4)
    bottom = 96 - d * 30 + c.jitter(4)
    c.shape([(top - 9, 72), (top + 9, 72), (bottom + 52, 192), (bottom - 52, 192)], ROAD)
    # markings at shares of the way down, larger near the viewer
    for t in (0.08, 0.3, 0.86):
        marking = c.at(top + (bottom - top) * t, 72 + 120 * t)
        half = 1 + 3 * t
        marking.box(-half, 0, half, 4 + 10 * t, MARKING)
    _draw_car(c.at(top + (bottom - top) * 0.6, 146 + c.jitter(4)), car)
    # from the horizon to the viewer, so that near trees cover far ones
    for x, y in TREES[: int(count)]:
        tree = c.at(96 + d * x + c.jitter(3), y + c.jitter(2))
        tree.box(-3, 0, 3, 11, TRUNK)
        tree.shape([(-15, 2), (0, -36), (15, 2)], LEAVES)
    return finish(c, time)


def _draw_car(pen: Pen, colour: str):
    paint = PAINT[colour]
    for wheel in (-22, 22):
        pen.box(wheel - 6, 4, wheel + 6, 20, TYRE, 3)
    pen.box(-22, -32, 22, 0, shade(paint, -0.12), 9)
    pen.box(-16, -26, 16, -10, GLASS, 4)
    pen.box(-31, -12, 31, 12, paint, 8)
    for lamp in (-22, 22):
        pen.circle(lamp, 0, 5, LAMP)


def draw_cake(rng: Random, count: str, cake: str, table: str) -> Canvas:
    """Draw tennis balls on top of a cake."""
    c = Canvas(rng, gradient((226, 230, 240), (192, 198, 214)))
    c.box(0, 148, 192, 192, shade(PAINT[table], -0.2))
    c.disc(96, 150, 112, 18, PAINT[table])
    paint = PAINT[cake]
    pen = c.at(96 + c.jitter(8))
    w = 66 + c.jitter(3)
    pen.disc(0, 158, w + 14, 16, (250, 250, 252), (170, 174, 186))
    pen.box(-w, 98, w, 156, paint)
    pen.disc(0, 156, w, 12, paint)
    pen.box(-w, 122, w, 131, shade(paint, -0.28))
    # the cream runs down in nine drops
    for k in range(9):
        pen.disc(8 - w + k * (w - 8) / 4, 106, 10, 12 + c.jitter(3), CREAM)
    pen.disc(0, 98, w, 14, CREAM, shade(paint, -0.2))
    for x, y in BALLS[int(count)]:
        ball = c.at(pen.x + x + c.jitter(1.5), 82 + y + c.jitter(1.5))
        ball.ball(0, 0, 18, TENNIS)
        ball.arc((-32, -17, -4, 17), -50, 50, SEAM, 3)
    return c
