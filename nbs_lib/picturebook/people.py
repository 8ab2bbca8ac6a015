"""People, whole or to the shoulders, with faces that differ."""

from .canvas import Canvas, Colour, shade

SKIN = ((255, 220, 188), (240, 194, 150), (206, 150, 108), (150, 100, 66), (104, 68, 46))
HAIR = ((40, 28, 22), (92, 56, 30), (190, 132, 58), (160, 70, 34))


def _face(c: Canvas, x: float, y: float, r: float, look: float = 0.0):
    skin, hair = c.rng.choice(SKIN), c.rng.choice(HAIR)
    c.disc(x, y - r * 0.14, r * 1.1, r * 1.06, hair)
    c.disc(x + look * r * 0.1, y + r * 0.14, r * 0.94, r * 0.9, skin)
    for side in (-0.36, 0.36):
        c.disc(x + (side + look * 0.35) * r, y + r * 0.08, max(2.4, r * 0.12), None, (30, 24, 28))
    mouth = (x + (look * 0.35 - 0.36) * r, y + r * 0.1, x + (look * 0.35 + 0.36) * r, y + r * 0.66)
    c.pen.arc(mouth, 25, 155, fill=(150, 40, 40), width=max(3, round(r * 0.12)))
    return skin


def figure(
    c: Canvas, x: float, y: float, shirt: Colour, arms, legs, lean: float = 0.0, look: float = 0.0
):
    """A whole person; (x, y) is the middle of the hips, arms and legs are points relative to shoulder and hip."""
    trousers = (54, 58, 84)
    for leg in legs:
        c.limb([(x, y)] + [(x + dx, y + dy) for dx, dy in leg], 13, trousers)
        c.disc(x + leg[-1][0] + look * 4, y + leg[-1][1] + 3, 9, 6, (40, 34, 36))
    top = (x + lean, y - 44)
    c.limb([(x, y - 6), (x + lean * 0.8, y - 34)], 32, shirt)
    skin = _face(c, top[0] + lean * 0.3, top[1] - 24, 20, look)
    for arm in arms:
        points = [(top[0], top[1] + 10)] + [(top[0] + dx, top[1] + 10 + dy) for dx, dy in arm]
        c.limb(points, 12, shade(shirt, -0.12))
        c.disc(*points[-1], 7, None, skin)


def portrait(c: Canvas, x: float, shirt: Colour, look: float) -> Colour:
    """Head and shoulders, filling the picture; returns the colour of the skin."""
    c.box(x - 52, 106, x + 52, 230, shirt, 34)
    c.box(x - 10, 92, x + 10, 116, shade(shirt, -0.3), 6)
    return _face(c, x, 62, 36, look)
