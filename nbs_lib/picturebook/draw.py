"""Scenes drawn by code: 64 × 64 pictures, drawn three times larger and reduced so that edges are smooth."""

from collections.abc import Callable
from random import Random

from PIL import Image

from .canvas import LARGE, PAINT, SIZE, Canvas, finish, gradient, ground, shade, sky
from .captions import KINDS, Scene
from .people import figure, portrait

TENNIS = (206, 232, 52)
LEMON = (255, 232, 60)


def draw_tv(rng: Random, shirt: str, sofa: str, side: str, time: str) -> Canvas:
    wall = rng.choice(((236, 224, 200), (214, 222, 210), (224, 212, 224)))
    c = Canvas(rng, gradient(wall, shade(wall, -0.1)))
    d = -1 if side == "left" else 1
    window = sky(rng, time)
    if time == "rain":
        finish(window, "rain")
    x = 96 - d * 38 + c.jitter(5)
    c.box(x - 40, 6, x + 40, 78, (250, 250, 250), 4)
    c.image.paste(window.image.resize((70, 62)), (round(x) - 35, 11))
    c.box(x - 2, 10, x + 2, 74, (250, 250, 250))
    c.box(0, 154, 192, 192, (150, 104, 70))
    tv = 96 + d * 56 + c.jitter(4)
    c.box(tv - 7, 116, tv + 7, 158, (60, 56, 60))
    c.box(tv - 30, 154, tv + 30, 164, (60, 56, 60), 4)
    c.box(tv - 36, 66, tv + 36, 122, (36, 36, 42), 6)
    c.box(
        tv - 30,
        72,
        tv + 30,
        116,
        rng.choice(((120, 220, 240), (160, 240, 170), (246, 250, 190))),
        3,
    )
    seat, y = 96 - d * 40 + c.jitter(4), 146 + c.jitter(3)
    paint = PAINT[sofa]
    c.box(seat - 50, 96, seat + 50, 170, shade(paint, -0.22), 14)
    figure(
        c,
        seat,
        y,
        PAINT[shirt],
        [[(d * 12, 18), (d * 26, 22)]],
        [[(d * 24, 4), (d * 28, 30)]],
        look=d,
    )
    c.box(seat - 56, 156, seat + 56, 182, paint, 10)
    c.box(seat - d * 58 - 12, 122, seat - d * 58 + 12, 182, shade(paint, -0.1), 8)
    return finish(c, time if time != "rain" else "day")


def draw_dancing(rng: Random, shirt: str, umbrella: str, time: str) -> Canvas:
    c = sky(rng, time)
    ground(c, 148 + c.jitter(4), (104, 116, 128))
    for x in (36, 110, 160):
        c.disc(x + c.jitter(14), 172 + c.jitter(8), 22, 5, (150, 172, 196))
    d = rng.choice((-1, 1))
    x, y = 96 - d * 14 + c.jitter(8), 124 + c.jitter(3)
    hand = (x + d * 40, y - 58)
    c.limb([hand, (hand[0] + d * 4, hand[1] - 26)], 4, (70, 60, 56))
    arms = [[(d * 24, -8), (hand[0] - x, hand[1] - y + 34)], [(-d * 26, 6), (-d * 42, -16)]]
    figure(
        c,
        x,
        y,
        PAINT[shirt],
        arms,
        [[(-d * 8, 24), (-d * 4, 48)], [(d * 22, 10), (d * 36, 32)]],
        lean=-d * 5,
    )
    ux, uy, paint = hand[0] + d * 4, hand[1] - 8, PAINT[umbrella]
    c.pen.pieslice((ux - 46, uy - 46, ux + 46, uy + 40), 180, 360, fill=paint)
    for k in (-1, 0, 1):
        c.pen.pieslice(
            (ux + k * 30 - 16, uy - 12, ux + k * 30 + 16, uy + 4),
            180,
            360,
            fill=shade(paint, -0.25),
        )
    return finish(c, time, rain=True)


def draw_fence(rng: Random, shirt: str, fence: str, time: str) -> Canvas:
    c = sky(rng, time)
    ground(c, 138 + c.jitter(4), (96, 170, 80))
    d = rng.choice((-1, 1))
    x, y = 96 + c.jitter(14), 92 + c.jitter(4)
    arms = [[(d * 22, -12), (d * 32, -30)], [(-d * 22, -6), (-d * 34, -24)]]
    figure(
        c,
        x,
        y,
        PAINT[shirt],
        arms,
        [[(d * 26, 4), (d * 34, 20)], [(-d * 24, 8), (-d * 44, 2)]],
        lean=d * 6,
        look=d,
    )
    paint = PAINT[fence]
    for y0 in (136, 160):
        c.box(0, y0, 192, y0 + 9, shade(paint, -0.3))
    start = c.jitter(8)
    for k in range(-1, 9):
        left = start + k * 25
        c.shape(
            [(left, 186), (left, 128), (left + 9, 118), (left + 18, 128), (left + 18, 186)], paint
        )
    return finish(c, time)


def draw_ball(rng: Random, shirt: str, ball: str, side: str, time: str) -> Canvas:
    c = sky(rng, time)
    ground(c, 132 + c.jitter(4), (104, 178, 84))
    d = -1 if side == "left" else 1
    x, y = 96 - d * 34 + c.jitter(6), 126 + c.jitter(3)
    c.disc(x, y + 52, 32, 6, (72, 132, 62))
    arms = [[(d * 20, 14), (d * 30, -2)], [(-d * 22, 10), (-d * 34, -4)]]
    figure(
        c,
        x,
        y,
        PAINT[shirt],
        arms,
        [[(-d * 8, 24), (-d * 10, 48)], [(d * 22, 12), (d * 44, 20)]],
        lean=-d * 6,
        look=d,
    )
    bx, by = 96 + d * 58 + c.jitter(6), 134 + c.jitter(8)
    c.disc(bx, 182, 24, 5, (72, 132, 62))
    c.ball(bx, by, 26, PAINT[ball])
    return finish(c, time)


def draw_beach(rng: Random, parasol: str, sail: str, side: str, time: str) -> Canvas:
    c = sky(rng, time)
    c.box(0, 74, 192, 150, (32, 110, 176))
    d = -1 if side == "left" else 1
    bx, paint = 96 - d * 44 + c.jitter(12), PAINT[sail]
    c.shape([(bx + 2, 28), (bx + 2, 78), (bx + 38, 78)], paint)
    c.shape([(bx - 2, 36), (bx - 2, 78), (bx - 24, 78)], shade(paint, -0.2))
    c.shape([(bx - 32, 82), (bx + 38, 82), (bx + 26, 96), (bx - 22, 96)], (110, 62, 34))
    for row, y in enumerate((98, 112, 128)):
        shift = c.jitter(12)
        for k in range(-1, 6):
            x = shift + k * 42 + row * 17
            c.pen.arc((x, y - 8, x + 42, y + 14), 200, 340, fill=(222, 242, 252), width=5)
    c.shape([(0, 146), (60, 138), (130, 148), (192, 140), (192, 192), (0, 192)], (240, 214, 150))
    px, paint = 96 + d * 48 + c.jitter(6), PAINT[parasol]
    c.disc(px, 184, 40, 6, (206, 178, 116))
    c.limb([(px, 110), (px, 182)], 5, (120, 90, 60))
    c.pen.pieslice((px - 46, 84, px + 46, 176), 180, 360, fill=paint)
    c.pen.pieslice((px - 18, 84, px + 18, 176), 180, 360, fill=shade(paint, -0.22))
    return finish(c, time)


def draw_road(rng: Random, car: str, count: str, side: str, time: str) -> Canvas:
    c = sky(rng, time)
    d = -1 if side == "left" else 1
    c.disc(96 + d * 60, 150, 150, 82, (78, 146, 78))
    c.disc(96 - d * 70, 156, 130, 70, (110, 176, 86))
    ground(c, 140, (120, 184, 92))
    road = (92, 92, 100)
    top, bottom = 96 - d * 4 + c.jitter(4), 96 - d * 30 + c.jitter(4)
    c.shape([(top - 9, 72), (top + 9, 72), (bottom + 52, 192), (bottom - 52, 192)], road)
    for t in (0.08, 0.3, 0.86):
        x, y = top + (bottom - top) * t, 72 + 120 * t
        c.box(x - 1 - 3 * t, y, x + 1 + 3 * t, y + 4 + 10 * t, (250, 246, 220))
    cx, cy, paint = top + (bottom - top) * 0.6, 146 + c.jitter(4), PAINT[car]
    for wheel in (-1, 1):
        c.box(cx + wheel * 22 - 6, cy + 4, cx + wheel * 22 + 6, cy + 20, (30, 30, 34), 3)
    c.box(cx - 22, cy - 32, cx + 22, cy, shade(paint, -0.12), 9)
    c.box(cx - 16, cy - 26, cx + 16, cy - 10, (206, 232, 246), 4)
    c.box(cx - 31, cy - 12, cx + 31, cy + 12, paint, 8)
    for lamp in (-1, 1):
        c.disc(cx + lamp * 22, cy, 5, None, (255, 250, 200))
    spots = ((66, 84), (38, 104), (80, 122), (56, 146), (84, 168))
    for dx, y in spots[: int(count)]:
        x, y = 96 + d * dx + c.jitter(3), y + c.jitter(2)
        c.box(x - 3, y, x + 3, y + 11, (104, 68, 40))
        c.shape([(x - 15, y + 2), (x, y - 36), (x + 15, y + 2)], (20, 88, 52))
    return finish(c, time)


def draw_cake(rng: Random, count: str, cake: str, table: str) -> Canvas:
    c = Canvas(rng, gradient((226, 230, 240), (192, 198, 214)))
    wood, paint = PAINT[table], PAINT[cake]
    c.box(0, 148, 192, 192, shade(wood, -0.2))
    c.disc(96, 150, 112, 18, wood)
    x, w = 96 + c.jitter(8), 66 + c.jitter(3)
    c.disc(x, 158, w + 14, 16, (250, 250, 252), (170, 174, 186))
    c.box(x - w, 98, x + w, 156, paint)
    c.disc(x, 156, w, 12, paint)
    c.box(x - w, 122, x + w, 131, shade(paint, -0.28))
    for k in range(9):
        c.disc(x - w + 8 + k * (w - 8) / 4, 106, 10, 12 + c.jitter(3), (255, 246, 232))
    c.disc(x, 98, w, 14, (255, 246, 232), shade(paint, -0.2))
    rows = {1: [(0, 0)], 2: [(-19, 0), (19, 0)], 3: [(-36, 0), (0, 3), (36, 0)]}
    rows[4] = [(0, -30)] + rows[3]
    rows[5] = [(-19, -30), (19, -30)] + rows[3]
    for dx, dy in rows[int(count)]:
        bx, by = x + dx + c.jitter(1.5), 82 + dy + c.jitter(1.5)
        c.ball(bx, by, 18, TENNIS)
        c.pen.arc((bx - 32, by - 17, bx - 4, by + 17), -50, 50, fill=(250, 252, 240), width=3)
    return c


def draw_soda(rng: Random, soda: str, shirt: str, side: str, time: str) -> Canvas:
    c = sky(rng, time)
    d = -1 if side == "left" else 1
    x = 96 - d * 26 + c.jitter(5)
    skin = portrait(c, x, PAINT[shirt], d * 0.6)
    gx, gy, paint = 96 + d * 58 + c.jitter(4), 96 + c.jitter(4), PAINT[soda]
    c.limb([(x + d * 42, 142), (x + d * 54, 184), (gx, 158)], 24, shade(PAINT[shirt], -0.14))
    c.limb([(gx + 6, gy - 10), (gx + 16, gy - 54)], 6, (250, 90, 90))
    c.shape(
        [(gx - 26, gy - 34), (gx + 26, gy - 34), (gx + 20, gy + 50), (gx - 20, gy + 50)],
        (226, 240, 248),
    )
    c.shape([(gx - 22, gy - 20), (gx + 22, gy - 20), (gx + 17, gy + 46), (gx - 17, gy + 46)], paint)
    for _ in range(5):
        c.disc(gx + c.jitter(12), gy + 12 + c.jitter(24), 3, None, shade(paint, 0.5))
    c.limb([(gx - 16, gy + 58), (gx + 16, gy + 54)], 20, skin)
    return finish(c, time)


def draw_lemon(rng: Random, shirt: str, bowl: str, time: str) -> Canvas:
    c = sky(rng, time)
    x = 96 + c.jitter(6)
    skin = portrait(c, x, PAINT[shirt], c.jitter(0.3))
    lx, ly, paint = x + c.jitter(3), 120 + c.jitter(2), PAINT[bowl]
    for side in (-1, 1):
        c.limb(
            [(x + side * 46, 136), (x + side * 52, 156), (lx + side * 24, ly + 2)],
            20,
            shade(PAINT[shirt], -0.16),
        )
    c.disc(lx, ly, 24, 16, LEMON, (196, 168, 20))
    c.disc(lx - 7, ly - 5, 7, 4, (255, 250, 190))
    for side in (-1, 1):
        c.disc(lx + side * 25, ly + 2, 10, 13, skin)
    for k in range(2):
        c.disc(lx + c.jitter(4), ly + 22 + 10 * k, 4, 5, LEMON)
    c.pen.pieslice((x - 52, 108, x + 52, 196), 0, 180, fill=paint)
    c.disc(x, 152, 52, 9, shade(paint, -0.3))
    c.disc(x, 154, 38, 6, (250, 240, 150))
    return finish(c, time)


def draw_cat(rng: Random, cat: str, shirt: str, side: str, time: str) -> Canvas:
    c = sky(rng, time)
    d = -1 if side == "left" else 1
    x, paint = 96 - d * 24 + c.jitter(5), PAINT[cat]
    skin = portrait(c, x, PAINT[shirt], d * 0.5)
    kx, ky, line = (
        96 + d * 40 + c.jitter(4),
        108 + c.jitter(4),
        shade(PAINT[cat], 0.3 if cat == "black" else -0.35),
    )
    c.disc(kx, ky + 46, 30, 42, paint, line)
    c.limb([(kx + d * 22, ky + 74), (kx + d * 40, ky + 50), (kx + d * 36, ky + 22)], 10, paint)
    for ear in (-1, 1):
        c.shape([(kx + ear * 8, ky - 18), (kx + ear * 28, ky - 38), (kx + ear * 27, ky - 4)], paint)
        c.shape(
            [(kx + ear * 14, ky - 18), (kx + ear * 25, ky - 30), (kx + ear * 24, ky - 12)],
            (240, 160, 160),
        )
    c.disc(kx, ky, 29, 25, paint, line)
    for eye in (-1, 1):
        c.disc(kx + eye * 11, ky - 3, 6, 7, (150, 224, 90))
        c.disc(kx + eye * 11, ky - 3, 2.4, 6, (20, 20, 20))
    c.shape([(kx - 4, ky + 8), (kx + 4, ky + 8), (kx, ky + 13)], (240, 120, 130))
    for arm in (-1, 1):
        c.pen.line((kx + arm * 8, ky + 11, kx + arm * 30, ky + 8), fill=line, width=2)
    c.limb(
        [(x - d * 44, 140), (x - d * 30, 180), (kx + d * 8, ky + 56)],
        20,
        shade(PAINT[shirt], -0.16),
    )
    c.disc(kx + d * 10, ky + 56, 11, None, skin)
    return finish(c, time)


DRAW: dict[str, Callable[..., Canvas]] = {kind: globals()[f"draw_{kind}"] for kind in KINDS}


def draw(scene: Scene, rng: Random) -> Image.Image:
    """The picture of a scene, 64 × 64 RGB. The values fix what is seen; `rng` fixes places, faces and light details."""
    return DRAW[scene.kind](rng, **scene.attributes).image.reduce(LARGE // SIZE)
