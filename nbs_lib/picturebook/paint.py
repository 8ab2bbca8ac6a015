"""The colours of the scenes, and the light of each time of day."""

Colour = tuple[int, int, int]
PAINT: dict[str, Colour] = {
    "red": (216, 42, 42),
    "orange": (246, 136, 26),
    "yellow": (250, 214, 44),
    "green": (46, 160, 66),
    "blue": (40, 92, 216),
    "purple": (130, 52, 176),
    "pink": (250, 140, 192),
    "white": (244, 244, 246),
    "black": (40, 38, 44),
    "grey": (144, 146, 154),
    "brown": (128, 82, 46),
}
# Colours at the top and at the bottom.
SKY: dict[str, tuple[Colour, Colour]] = {
    "day": ((78, 164, 244), (206, 236, 255)),
    "sunset": ((112, 60, 136), (255, 172, 92)),
    "night": ((10, 14, 50), (44, 54, 112)),
    "rain": ((98, 108, 124), (176, 184, 194)),
}
# A colour over the whole picture, and its share.
TINT: dict[str, tuple[Colour, float]] = {
    "day": ((255, 250, 230), 0.0),
    "sunset": ((255, 116, 40), 0.15),
    "night": ((12, 16, 70), 0.24),
    "rain": ((112, 124, 140), 0.12),
}
# The colour of the light that falls from its side, and its share.
BEAM: dict[str, tuple[Colour, float]] = {
    "day": ((255, 252, 226), 0.2),
    "sunset": ((255, 190, 96), 0.3),
    "night": ((150, 170, 240), 0.14),
    "rain": ((226, 232, 240), 0.1),
}
SHADOW: Colour = (20, 20, 46)  # bluish, as shadows under a sky are


def shade(colour: Colour, light: float) -> Colour:
    """Return a colour mixed with black (light < 0) or white (light > 0); light in [-1, 1]."""
    goal = 255 if light > 0 else 0
    return tuple(round(c + (goal - c) * abs(light)) for c in colour)


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """Return a colour between two; share: of the second, in [0, 1]."""
    return tuple(round(a + (b - a) * share) for a, b in zip(first, second, strict=True))


def direction(side: str) -> int:
    """Return -1 for left and 1 for right."""
    return -1 if side == "left" else 1
