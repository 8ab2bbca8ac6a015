"""People, whole or head and shoulders, with different faces."""

from .canvas import Canvas, Pen, Point
from .paint import SHADOW, Colour, mix, shade

SKIN = ((255, 222, 192), (242, 198, 156), (214, 160, 118), (166, 114, 78), (120, 80, 56))
HAIR = ((44, 32, 28), (98, 60, 34), (196, 140, 66), (166, 76, 40))
TROUSERS = ((56, 62, 92), (84, 74, 70), (60, 70, 76))
SHOES = (48, 42, 46)
EYES = (38, 28, 34)
GLEAM = (255, 255, 255)
LIPS = (158, 58, 58)
BLUSH = (236, 104, 96)
STYLES = ("short", "parted", "curly", "long")
Joints = list[Point]  # of an arm or a leg, relative to shoulder or hip


def face(pen: Pen, r: float, look: float = 0.0) -> Colour:
    """Draw a head around the pen's origin and return the colour of its skin.

    look: 1 in the pen's direction, 0 to the front
    """
    rng = pen.canvas.rng
    pen.canvas.heads.append((pen.x, pen.y, r))
    skin = rng.choice(SKIN)
    hair = rng.choice(HAIR)
    style = rng.choice(STYLES)
    _hair_behind(pen, r, hair, style)
    for side in (-1, 1):
        pen.disc((0.94 * side - 0.1 * look) * r, 0.18 * r, 0.17 * r, 0.22 * r, shade(skin, -0.12))
    pen.ball(0.04 * look * r, 0.08 * r, 0.93 * r, 0.95 * r, skin)
    middle = 0.3 * look * r
    _features(pen, r, middle, skin, hair)
    _hair_in_front(pen, r, hair, style)
    return skin


def _features(pen: Pen, r: float, middle: float, skin: Colour, hair: Colour):
    for side in (-1, 1):
        x = middle + side * 0.36 * r
        # a blush, and eyes of one dark oval with a gleam, which stay clean at 128 pixels
        pen.soft(x * 1.2, 0.44 * r, 0.3 * r, 0.22 * r, BLUSH, 0.4)
        pen.disc(x, 0.14 * r, 0.115 * r, 0.16 * r, EYES)
        pen.circle(x - pen.d * 0.035 * r, 0.08 * r, 0.048 * r, GLEAM)
        pen.arc((x - 0.17 * r, -0.2 * r, x + 0.17 * r, 0.2 * r), 215, 325, hair, 0.07 * r)
    pen.disc(middle * 1.25, 0.34 * r, 0.075 * r, 0.06 * r, shade(mix(skin, BLUSH, 0.3), -0.12))
    mouth = (middle - 0.32 * r, 0.16 * r, middle + 0.32 * r, 0.68 * r)
    pen.arc(mouth, 30, 150, LIPS, 0.085 * r)


def _hair_behind(pen: Pen, r: float, hair: Colour, style: str):
    if style == "long":
        pen.ball(0, -0.06 * r, 1.08 * r, 1.02 * r, hair)
        for side in (-1, 1):
            pen.limb([(0.86 * side * r, 0), (0.92 * side * r, 0.86 * r)], 0.42 * r, hair)
    elif style == "curly":
        for x, y in ((-0.9, -0.1), (0.9, -0.1), (-0.72, -0.6), (0.72, -0.6), (0, -0.86)):
            pen.ball(x * r, y * r, 0.46 * r, 0.44 * r, hair)
    else:
        pen.ball(0, -0.1 * r, 1.05 * r, 1.0 * r, hair)


def _hair_in_front(pen: Pen, r: float, hair: Colour, style: str):
    edges = (-1.0 * r, -1.02 * r, 1.0 * r, 0.98 * r)
    if style == "parted":
        pen.chord(edges, 175, 292, hair)
        pen.chord(edges, 268, 352, shade(hair, 0.06))
    elif style == "curly":
        for x, y in ((-0.56, -0.62), (-0.2, -0.74), (0.2, -0.74), (0.56, -0.62)):
            pen.ball(x * r, y * r, 0.32 * r, 0.3 * r, shade(hair, 0.05))
    else:
        start, end = (204, 336) if style == "short" else (194, 346)
        pen.chord(edges, start, end, hair)
    # a gleam on the side of the light
    gleam = (-0.8 * r, -0.86 * r, 0.8 * r, 0.6 * r)
    start = 292 if pen.light[0] > 0 else 220
    pen.arc(gleam, *_mirrored(pen, start, start + 28), shade(hair, 0.3), 0.09 * r)


def _mirrored(pen: Pen, start: float, end: float) -> tuple[float, float]:
    # an arc's angles are the canvas's own: a mirrored pen mirrors its edges only
    return (start, end) if pen.d == 1 else (540 - end, 540 - start)


def figure(
    pen: Pen,
    shirt: Colour,
    arms: list[Joints],
    legs: list[Joints],
    lean: float = 0.0,
    look: float = 0.0,
):
    """Draw a whole person with the middle of the hips at the pen's origin.

    lean: of the shoulders in the pen's direction
    look: 1 in the pen's direction, 0 to the front
    """
    trousers = pen.canvas.rng.choice(TROUSERS)
    for leg in legs:
        pen.limb([(0, 0), *leg], 13, trousers)
        x, y = leg[-1]
        pen.ball(x + 3 + look * 2, y + 3, 9, 6, SHOES)
    # the far arm is behind the body
    shoulder = pen.canvas.at(pen.x + pen.d * lean, pen.y - 34, pen.d)
    sleeve = shade(shirt, -0.1)
    for arm in arms:
        shoulder.limb([(0, 0), *arm], 11.5, sleeve)
    pen.limb([(0, -5), (lean * 0.8, -32)], 32, shirt)
    # the head leans further than the shoulders
    head = pen.canvas.at(pen.x + pen.d * lean * 1.3, pen.y - 68, pen.d)
    # the head's shadow on the shirt
    head.soft(0, 22, 18, 9, SHADOW, 0.45)
    skin = face(head, 22, look)
    # again from the middle of the upper arm, because the hands are in front of body and face
    for arm in arms:
        shoulder.limb([_between((0, 0), arm[0], 0.45), *arm], 11.5, sleeve)
        x, y = arm[-1]
        shoulder.ball(x, y, 6.6, 6.6, skin)


def _between(first: Point, second: Point, share: float) -> Point:
    return tuple(a + (b - a) * share for a, b in zip(first, second, strict=True))


def portrait(c: Canvas, x: float, d: int, shirt: Colour, look: float) -> Colour:
    """Draw head and shoulders over the whole picture and return the colour of the skin."""
    pen = c.at(x, 0, d)
    pen.cushion(-52, 108, 52, 230, shirt, 34)
    # a collar in place of a neck: fewer small shapes under the chin
    neck = shade(shirt, -0.34)
    pen.disc(0, 109, 20, 10, neck)
    head = c.at(x, 62, d)
    head.soft(0, 46, 34, 16, SHADOW, 0.4)
    return face(head, 38, look)
