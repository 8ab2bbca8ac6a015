"""Shapes and textures drawn by code: what neither scenes nor icons have, for the VAE."""

from random import Random

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from ...canvas import SIZE

WIDE = 2 * SIZE  # pixels a side while drawing; reduced by two, edges are smooth


def draw_texture(rng: Random) -> Image.Image:
    """Return a random picture of stripes, checks, dots, shapes, strokes or clouds of colour."""
    draw = rng.choice((_stripes, _checks, _dots, _shapes, _strokes, _clouds))
    return draw(rng).reduce(WIDE // SIZE)


def random_colour(rng: Random) -> tuple[int, int, int]:
    """Return a colour from the whole cube."""
    return rng.randrange(256), rng.randrange(256), rng.randrange(256)


def gradient_between(first, second, angle: float) -> Image.Image:
    """Return a picture, `SIZE` a side, whose colour changes in one direction; angle in degrees."""
    radians = np.deg2rad(angle)
    y, x = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    t = np.clip((x * np.cos(radians) + y * np.sin(radians)) / 2 + 0.5, 0, 1)[..., None]
    return Image.fromarray((np.array(first) * (1 - t) + np.array(second) * t).astype(np.uint8))


def _ground(rng: Random) -> Image.Image:
    angle = rng.uniform(0, 360)
    picture = gradient_between(random_colour(rng), random_colour(rng), angle)
    return picture.resize((WIDE, WIDE))


def _stripes(rng: Random) -> Image.Image:
    # twice as wide, because a turned picture has empty corners
    picture = Image.new("RGB", (2 * WIDE, 2 * WIDE), random_colour(rng))
    draw = ImageDraw.Draw(picture)
    width = rng.randint(4, 40)
    colour = random_colour(rng)
    for x in range(0, 2 * WIDE, 2 * width):
        draw.rectangle((x, 0, x + width, 2 * WIDE), colour)
    half = WIDE // 2
    turned = picture.rotate(rng.uniform(0, 180), Image.Resampling.BILINEAR)
    return turned.crop((half, half, half + WIDE, half + WIDE))


def _checks(rng: Random) -> Image.Image:
    picture = _ground(rng)
    draw = ImageDraw.Draw(picture)
    side = rng.randint(12, 48)
    colour = random_colour(rng)
    for row in range(WIDE // side + 1):
        for column in range(row % 2, WIDE // side + 1, 2):
            x, y = column * side, row * side
            draw.rectangle((x, y, x + side - 1, y + side - 1), colour)
    return picture


def _dots(rng: Random) -> Image.Image:
    picture = _ground(rng)
    draw = ImageDraw.Draw(picture)
    step = rng.randint(18, 60)
    r = step * rng.uniform(0.15, 0.42)
    colour = random_colour(rng)
    for row in range(WIDE // step + 2):
        for column in range(WIDE // step + 2):
            x, y = column * step + row % 2 * step / 2, row * step
            draw.ellipse((x - r, y - r, x + r, y + r), colour)
    return picture


def _shapes(rng: Random) -> Image.Image:
    picture = _ground(rng)
    draw = ImageDraw.Draw(picture)
    for _ in range(rng.randint(3, 14)):
        x, y = rng.uniform(0, WIDE), rng.uniform(0, WIDE)
        w, h = rng.uniform(8, 90), rng.uniform(8, 90)
        line = random_colour(rng) if rng.random() < 0.5 else None
        edges = (x - w, y - h, x + w, y + h)
        if rng.random() < 0.5:
            draw.ellipse(edges, random_colour(rng), line, rng.randint(1, 6))
        else:
            draw.rounded_rectangle(edges, min(w, h) / 3, random_colour(rng), line, 3)
    return picture


def _strokes(rng: Random) -> Image.Image:
    picture = _ground(rng)
    draw = ImageDraw.Draw(picture)
    for _ in range(rng.randint(4, 24)):
        x, y = rng.uniform(0, WIDE), rng.uniform(0, WIDE)
        points = [(x, y)]
        for _ in range(rng.randint(1, 5)):
            points.append((points[-1][0] + rng.gauss(0, 40), points[-1][1] + rng.gauss(0, 40)))
        draw.line(points, random_colour(rng), rng.randint(2, 14), joint="curve")
    return picture


def _clouds(rng: Random) -> Image.Image:
    side = rng.choice((4, 8, 16, 32))
    noise = np.array([random_colour(rng) for _ in range(side * side)], np.uint8)
    picture = Image.fromarray(noise.reshape(side, side, 3))
    picture = picture.resize((WIDE, WIDE), Image.Resampling.BICUBIC)
    return picture.filter(ImageFilter.GaussianBlur(rng.uniform(0, 6)))
