"""People, whole or head and shoulders, with different faces."""

from .canvas import Canvas, Colour, Pen, Point, shade

SKIN = ((255, 220, 188), (240, 194, 150), (206, 150, 108), (150, 100, 66), (104, 68, 46))
HAIR = ((40, 28, 22), (92, 56, 30), (190, 132, 58), (160, 70, 34))
TROUSERS = (54, 58, 84)
SHOES = (40, 34, 36)
EYES = (30, 24, 28)
MOUTH = (150, 40, 40)
Joints = list[Point]  # of an arm or a leg, relative to shoulder or hip


def _face(pen: Pen, r: float, look: float = 0.0) -> Colour:
    """Draw a face around the pen's origin and return the colour of its skin.

    look: 1 in the pen's direction, 0 to the front
    """
    rng = pen.canvas.rng
    skin = rng.choice(SKIN)
    hair = rng.choice(HAIR)
    # hair first: the face covers most of it
    pen.disc(0, -r * 0.14, r * 1.1, r * 1.06, hair)
    pen.disc(look * r * 0.1, r * 0.14, r * 0.94, r * 0.9, skin)
    middle = look * 0.35
    for side in (-0.36, 0.36):
        pen.circle((middle + side) * r, r * 0.08, max(2.4, r * 0.12), EYES)
    mouth = ((middle - 0.36) * r, r * 0.1, (middle + 0.36) * r, r * 0.66)
    pen.arc(mouth, 25, 155, MOUTH, max(3, round(r * 0.12)))
    return skin


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
    for leg in legs:
        pen.limb([(0, 0), *leg], 13, TROUSERS)
        x, y = leg[-1]
        pen.disc(x + look * 4, y + 3, 9, 6, SHOES)
    # the body, behind the arms
    pen.limb([(0, -6), (lean * 0.8, -34)], 32, shirt)
    # the head leans further than the shoulders
    head = pen.canvas.at(*pen.to_canvas(lean * 1.3, -68), pen.d)
    skin = _face(head, 20, look)
    shoulder = pen.canvas.at(*pen.to_canvas(lean, -34), pen.d)
    for arm in arms:
        shoulder.limb([(0, 0), *arm], 12, shade(shirt, -0.12))
        shoulder.circle(*arm[-1], 7, skin)


def portrait(c: Canvas, x: float, d: int, shirt: Colour, look: float) -> Colour:
    """Draw head and shoulders over the whole picture and return the colour of the skin."""
    pen = c.at(x, 0, d)
    pen.box(-52, 106, 52, 230, shirt, 34)
    pen.box(-10, 92, 10, 116, shade(shirt, -0.3), 6)
    return _face(c.at(x, 62, d), 36, look)
