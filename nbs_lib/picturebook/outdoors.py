"""Skies, ground and weather, and the light that falls over a finished scene."""

from functools import cache
from math import hypot
from random import Random

from PIL import Image, ImageOps

from .canvas import LARGE, SIZE, UNITS, Canvas, gradient
from .paint import BEAM, SHADOW, SKY, TINT, Colour, shade

SIDE_LIGHT = 0.6  # how far from straight above the light comes


def sky(rng: Random, time: str) -> Canvas:
    """Return a canvas with the sky of a time of day: sun, moon, stars or clouds.

    The light comes from the side of sun or moon.
    """
    x = rng.uniform(20, 172)
    c = Canvas(rng, gradient(*SKY[time]), -SIDE_LIGHT if x < UNITS / 2 else SIDE_LIGHT)
    SKIES[time](c, x)
    return c


def _day(c: Canvas, x: float):
    c.soft(x, 24, 46, 46, (255, 252, 214), 0.8)
    c.circle(x, 24, 13, (255, 244, 160))
    _cloud(c, (x + 74) % UNITS, 28, (252, 253, 255))
    _cloud(c, (x + 128) % UNITS, 52, (238, 247, 255), 0.6)


def _sunset(c: Canvas, x: float):
    c.soft(x, 66, 88, 62, (255, 214, 120), 0.75)
    for y in (30, 44, 56):
        start = x + c.jitter(60)
        c.soft(start, y, 60, 7, (255, 150, 130), 0.6)
    c.circle(x, 66, 22, (255, 232, 140))


def _night(c: Canvas, x: float):
    for _ in range(16):
        c.circle(
            c.rng.uniform(4, 188), c.rng.uniform(4, 92), c.rng.uniform(0.9, 1.7), (255, 255, 226)
        )
    c.soft(x, 26, 44, 44, (150, 160, 220), 0.6)
    c.circle(x, 26, 14, (250, 246, 216))
    for dx, dy, r in ((-5, -3, 3.4), (4, 4, 2.8), (5, -5, 1.8)):
        c.circle(x + dx, 26 + dy, r, (228, 222, 190))


def _rain(c: Canvas, x: float):
    for shift in (0, 66, 132):
        _cloud(c, (x + shift) % UNITS, 18, (104, 112, 126))
    for shift in (36, 100):
        _cloud(c, (x + shift) % UNITS, 10, (88, 96, 110))


SKIES = {"day": _day, "sunset": _sunset, "night": _night, "rain": _rain}


def _cloud(c: Canvas, x: float, y: float, fill: Colour, size: float = 1.0):
    # puffs: all shadows first, so that none lies on another puff
    parts = ((-20, 5, 10), (20, 5, 11), (-7, -3, 13), (8, -1, 13))
    for dx, dy, r in parts:
        c.disc(x + dx * size, y + (dy + 2) * size, r * 1.3 * size, r * size, shade(fill, -0.1))
    for dx, dy, r in parts:
        c.disc(x + dx * size, y + dy * size, r * 1.25 * size, r * 0.86 * size, fill)


def hills(c: Canvas, y: float, fill: Colour):
    """Draw two ranges of hills behind the ground at the height y, the farther one paler."""
    for height, light in ((26, 0.3), (15, 0.14)):
        x = c.rng.uniform(0, UNITS)
        for shift in (-96, 0, 96):
            c.disc(x + shift, y + 16, 78, height + 16, shade(fill, light))


def ground(c: Canvas, y: float, fill: Colour):
    """Draw the ground from the height y downwards, darker towards the viewer."""
    # bands instead of a gradient: a flat colour costs a tenth
    for step in range(6):
        top = y + (UNITS - y) * step / 6
        c.box(0, top, UNITS, UNITS, shade(fill, 0.14 - 0.05 * step))


def grass(c: Canvas, y: float, fill: Colour, count: int = 40):
    """Draw ground with tufts of grass, larger near the viewer."""
    ground(c, y, fill)
    for _ in range(count):
        x = c.rng.uniform(0, UNITS)
        down = c.rng.uniform(0.05, 1)
        pen = c.at(x, y + (UNITS - y) * down)
        size = 2 + 5 * down
        tone = shade(fill, c.rng.choice((-0.16, -0.1, 0.2)))
        pen.line([(-size / 2, 0), (0, -size), (size / 2, 0)], 0.8 + 0.5 * down, tone)


def finish(c: Canvas, time: str, rain: bool | None = None) -> Image.Image:
    """Return the picture in its final size, with rain and the light of the hour, from its side.

    rain: None for rain at the time `rain` only
    """
    if rain or (rain is None and time == "rain"):
        _draw_rain(c)
    # `reduce` averages blocks, which smooths the edges
    image = c.image.reduce(LARGE // SIZE)
    tint, strength = TINT[time]
    if strength:
        image = Image.blend(image, Image.new("RGB", image.size, tint), strength)
    colour, share = BEAM[time]
    # after the reduction, where a whole picture has a ninth of the pixels
    image.paste(colour, (0, 0), _falling_light(c.side < 0, share))
    image.paste(SHADOW, (0, 0), _falling_light(c.side > 0, 0.16))
    return image


def _draw_rain(c: Canvas):
    for i in range(18):
        x = c.rng.uniform(-6, 198)
        y = (i * 10.4 + c.jitter(8)) % 186
        # a face is small, and a line through an eye spoils it
        if all(hypot(x - 2 - left, y + 8 - top) > 1.1 * r + 9 for left, top, r in c.heads):
            c.line([(x, y), (x - 4, y + 17)], 1.3, (214, 230, 250))


@cache
def _falling_light(from_left: bool, share: float) -> Image.Image:
    """Return a mask that fades from one upper corner to the middle of the picture."""
    fade = Image.radial_gradient("L").resize((2 * SIZE, 2 * SIZE))
    # its middle is the corner, so a quarter of it is the picture
    corner = ImageOps.invert(fade.crop((SIZE, SIZE, 2 * SIZE, 2 * SIZE)))
    if not from_left:
        corner = ImageOps.mirror(corner)
    return corner.point(lambda v: round(share * max(0, v - 75) * 255 / 180))
