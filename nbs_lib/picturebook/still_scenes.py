"""Scenes without persons. d is 1 if the named side is right, -1 if it is left."""

from random import Random

from .canvas import PAINT, Canvas, direction, finish, gradient, ground, shade, sky

SEA = (32, 110, 176)
HULL = (110, 62, 34)
FOAM = (222, 242, 252)
SAND = (240, 214, 150)
SAND_SHADOW = (206, 178, 116)
WOOD = (120, 90, 60)
ROAD = (92, 92, 100)
MARKING = (250, 246, 220)
LAMP = (255, 250, 200)
TRUNK = (104, 68, 40)
LEAVES = (20, 88, 52)
TREES = ((66, 84), (38, 104), (80, 122), (56, 146), (84, 168))
CREAM = (255, 246, 232)
TENNIS = (206, 232, 52)
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
    x = 96 - d * 44 + c.jitter(12)
    paint = PAINT[sail]
    c.shape([(x + 2, 28), (x + 2, 78), (x + 38, 78)], paint)
    c.shape([(x - 2, 36), (x - 2, 78), (x - 24, 78)], shade(paint, -0.2))
    c.shape([(x - 32, 82), (x + 38, 82), (x + 26, 96), (x - 22, 96)], HULL)
    for row, y in enumerate((98, 112, 128)):
        shift = c.jitter(12)
        for k in range(-1, 6):
            x = shift + k * 42 + row * 17
            c.pen.arc((x, y - 8, x + 42, y + 14), 200, 340, fill=FOAM, width=5)
    c.shape([(0, 146), (60, 138), (130, 148), (192, 140), (192, 192), (0, 192)], SAND)
    x = 96 + d * 48 + c.jitter(6)
    paint = PAINT[parasol]
    c.disc(x, 184, 40, 6, SAND_SHADOW)
    c.limb([(x, 110), (x, 182)], 5, WOOD)
    c.pen.pieslice((x - 46, 84, x + 46, 176), 180, 360, fill=paint)
    c.pen.pieslice((x - 18, 84, x + 18, 176), 180, 360, fill=shade(paint, -0.22))
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
    for t in (0.08, 0.3, 0.86):
        x = top + (bottom - top) * t
        y = 72 + 120 * t
        c.box(x - 1 - 3 * t, y, x + 1 + 3 * t, y + 4 + 10 * t, MARKING)
    _car(c, top + (bottom - top) * 0.6, 146 + c.jitter(4), car)
    for dx, y in TREES[: int(count)]:
        _tree(c, 96 + d * dx + c.jitter(3), y + c.jitter(2))
    return finish(c, time)


def _car(c: Canvas, x: float, y: float, colour: str):
    paint = PAINT[colour]
    for side in (-1, 1):
        wheel = x + side * 22
        c.box(wheel - 6, y + 4, wheel + 6, y + 20, (30, 30, 34), 3)
    c.box(x - 22, y - 32, x + 22, y, shade(paint, -0.12), 9)
    c.box(x - 16, y - 26, x + 16, y - 10, (206, 232, 246), 4)
    c.box(x - 31, y - 12, x + 31, y + 12, paint, 8)
    for side in (-1, 1):
        c.disc(x + side * 22, y, 5, None, LAMP)


def _tree(c: Canvas, x: float, y: float):
    c.box(x - 3, y, x + 3, y + 11, TRUNK)
    c.shape([(x - 15, y + 2), (x, y - 36), (x + 15, y + 2)], LEAVES)


def draw_cake(rng: Random, count: str, cake: str, table: str) -> Canvas:
    """Draw tennis balls on top of a cake."""
    c = Canvas(rng, gradient((226, 230, 240), (192, 198, 214)))
    c.box(0, 148, 192, 192, shade(PAINT[table], -0.2))
    c.disc(96, 150, 112, 18, PAINT[table])
    paint = PAINT[cake]
    x = 96 + c.jitter(8)
    w = 66 + c.jitter(3)
    c.disc(x, 158, w + 14, 16, (250, 250, 252), (170, 174, 186))
    c.box(x - w, 98, x + w, 156, paint)
    c.disc(x, 156, w, 12, paint)
    c.box(x - w, 122, x + w, 131, shade(paint, -0.28))
    for k in range(9):
        c.disc(x - w + 8 + k * (w - 8) / 4, 106, 10, 12 + c.jitter(3), CREAM)
    c.disc(x, 98, w, 14, CREAM, shade(paint, -0.2))
    for dx, dy in BALLS[int(count)]:
        _tennis_ball(c, x + dx + c.jitter(1.5), 82 + dy + c.jitter(1.5))
    return c


def _tennis_ball(c: Canvas, x: float, y: float):
    c.ball(x, y, 18, TENNIS)
    c.pen.arc((x - 32, y - 17, x - 4, y + 17), -50, 50, fill=(250, 252, 240), width=3)
