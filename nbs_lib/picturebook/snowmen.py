"""Snowmen, a kind of scene that the embedded base was not trained on.

They stand for the dozen pictures of one's own that a user fine-tunes on.
"""

from random import Random

from PIL import Image

from .canvas import UNITS, Canvas
from .captions import COLOURS, TIME_PHRASES, with_articles
from .outdoors import finish, hills, sky
from .paint import PAINT, SHADOW, Colour, shade

SNOW = (238, 242, 250)
COAL = (30, 30, 36)
CARROT = (240, 120, 30)
BRANCH = (110, 72, 40)
WORDING = "A snowman with a {scarf} scarf and a {hat} hat {time}"


def draw_snowman(rng: Random) -> tuple[Image.Image, str]:
    """Return one picture, RGB, 128 × 128, and its caption."""
    scarf = rng.choice(COLOURS)
    hat = rng.choice(COLOURS)
    time = rng.choice(list(TIME_PHRASES)[:3])
    c = sky(rng, time)
    hills(c, 142, shade(SNOW, -0.2))
    c.box(0, 142, UNITS, UNITS, SNOW)  # no `ground`, whose edge is lighter: snow's is darker
    c.box(0, 142, UNITS, 148, shade(SNOW, -0.08))
    _draw_snowman(c, 96 + c.jitter(22), PAINT[scarf], PAINT[hat])
    picture = finish(c, time)
    caption = WORDING.format(scarf=scarf, hat=hat, time=TIME_PHRASES[time])
    return picture, with_articles(caption)


def _draw_snowman(c: Canvas, x: float, scarf: Colour, hat: Colour):
    pen = c.at(x)
    pen.soft(-pen.light[0] * 20, 178, 54, 12, SHADOW, 0.4)
    for y, r in ((146, 34), (100, 25), (63, 18)):
        pen.circle(0, y, r + 1, shade(SNOW, -0.26))
        pen.ball(0, y, r, r, SNOW)
    for half in (c.at(x, 0, -1), pen):
        half.strip([(22, 100), (52, 78 + c.jitter(10))], 4, BRANCH)
        half.circle(7, 58, 2.6, COAL)
    pen.shape([(0, 63), (20, 66), (0, 69)], CARROT)
    for y in (94, 106, 118):
        pen.circle(0, y, 2.8, COAL)
    pen.cushion(-19, 76, 19, 85, scarf, 4)
    pen.box(6, 80, 15, 104, shade(scarf, -0.12), 3)
    pen.cushion(-13, 24, 13, 48, hat, 3)
    pen.cushion(-21, 46, 21, 51, hat, 2)
