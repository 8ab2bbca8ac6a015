"""People, whole or head and shoulders, with different faces."""

from .canvas import Canvas, Colour, shade

SKIN = ((255, 220, 188), (240, 194, 150), (206, 150, 108), (150, 100, 66), (104, 68, 46))
HAIR = ((40, 28, 22), (92, 56, 30), (190, 132, 58), (160, 70, 34))
TROUSERS = (54, 58, 84)
SHOES = (40, 34, 36)
EYES = (30, 24, 28)
MOUTH = (150, 40, 40)
Joints = list[tuple[float, float]]  # relative to shoulder or hip


def _face(c: Canvas, x: float, y: float, r: float, look: float = 0.0) -> Colour:
    """Draw a face and return the colour of its skin.

    look: -1 to the left, 1 to the right
    """
    skin = c.rng.choice(SKIN)
    hair = c.rng.choice(HAIR)
    c.disc(x, y - r * 0.14, r * 1.1, r * 1.06, hair)
    c.disc(x + look * r * 0.1, y + r * 0.14, r * 0.94, r * 0.9, skin)
    for side in (-0.36, 0.36):
        c.disc(x + (side + look * 0.35) * r, y + r * 0.08, max(2.4, r * 0.12), None, EYES)
    left = x + (look * 0.35 - 0.36) * r
    right = x + (look * 0.35 + 0.36) * r
    edges = (left, y + r * 0.1, right, y + r * 0.66)
    c.pen.arc(edges, 25, 155, fill=MOUTH, width=max(3, round(r * 0.12)))
    return skin


def figure(
    c: Canvas,
    x: float,
    y: float,
    shirt: Colour,
    arms: list[Joints],
    legs: list[Joints],
    lean: float = 0.0,
    look: float = 0.0,
):
    """Draw a whole person with the middle of the hips at (x, y).

    lean: of the shoulders to the right of the hips
    look: -1 to the left, 1 to the right
    """
    for leg in legs:
        c.limb([(x, y), *_from(x, y, leg)], 13, TROUSERS)
        dx, dy = leg[-1]
        c.disc(x + dx + look * 4, y + dy + 3, 9, 6, SHOES)
    c.limb([(x, y - 6), (x + lean * 0.8, y - 34)], 32, shirt)
    shoulder_x = x + lean
    shoulder_y = y - 44
    skin = _face(c, shoulder_x + lean * 0.3, shoulder_y - 24, 20, look)
    arm_y = shoulder_y + 10
    for arm in arms:
        points = [(shoulder_x, arm_y), *_from(shoulder_x, arm_y, arm)]
        c.limb(points, 12, shade(shirt, -0.12))
        c.disc(*points[-1], 7, None, skin)


def _from(x: float, y: float, joints: Joints) -> Joints:
    return [(x + dx, y + dy) for dx, dy in joints]


def portrait(c: Canvas, x: float, shirt: Colour, look: float) -> Colour:
    """Draw head and shoulders over the whole picture and return the colour of the skin."""
    c.box(x - 52, 106, x + 52, 230, shirt, 34)
    c.box(x - 10, 92, x + 10, 116, shade(shirt, -0.3), 6)
    return _face(c, x, 62, 36, look)
