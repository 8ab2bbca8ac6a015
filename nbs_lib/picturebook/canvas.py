"""The canvas of the scenes: colours, strokes, skies and light. Lengths: 192 a side."""

from functools import cache
from random import Random

from PIL import Image, ImageDraw

SIZE = 64  # pixels a side of a finished picture
LARGE = 192  # pixels a side while drawing; reduced by three, edges are smooth

Colour = tuple[int, int, int]
Point = tuple[float, float]
PAINT: dict[str, Colour] = {
    "red": (214, 38, 38),
    "orange": (245, 134, 24),
    "yellow": (250, 214, 40),
    "green": (46, 158, 62),
    "blue": (38, 88, 214),
    "purple": (128, 48, 170),
    "pink": (250, 138, 190),
    "white": (244, 244, 246),
    "black": (34, 32, 36),
    "grey": (140, 142, 148),
    "brown": (124, 78, 42),
}
# Colours at the top and at the bottom.
SKY: dict[str, tuple[Colour, Colour]] = {
    "day": ((86, 172, 246), (198, 232, 255)),
    "sunset": ((120, 62, 132), (255, 168, 84)),
    "night": ((10, 14, 48), (40, 48, 104)),
    "rain": ((104, 114, 128), (172, 180, 188)),
}
# A colour over the whole picture, and its share.
TINT: dict[str, tuple[Colour, float]] = {
    "day": ((255, 255, 255), 0.0),
    "sunset": ((255, 120, 40), 0.16),
    "night": ((10, 14, 60), 0.22),
    "rain": ((120, 130, 140), 0.12),
}
OUTLINE = 3  # width of a line around a shape


def shade(colour: Colour, light: float) -> Colour:
    """Return a colour mixed with black (light < 0) or white (light > 0); light in [-1, 1]."""
    goal = 255 if light > 0 else 0
    return tuple(round(c + (goal - c) * abs(light)) for c in colour)


def direction(side: str) -> int:
    """Return -1 for left and 1 for right."""
    return -1 if side == "left" else 1


@cache
def gradient(top: Colour, bottom: Colour) -> Image.Image:
    """Return a background whose colour changes from top to bottom."""
    # one column, because every row has one colour
    strip = Image.new("RGB", (1, LARGE))
    for y in range(LARGE):
        t = y / (LARGE - 1)
        colour = tuple(round(a + (b - a) * t) for a, b in zip(top, bottom, strict=True))
        strip.putpixel((0, y), colour)
    return strip.resize((LARGE, LARGE))


class Pen:
    """Strokes relative to an origin.

    d: 1, or -1 to mirror left and right
    """

    def __init__(self, canvas: "Canvas", x: float, y: float, d: int):
        self.canvas = canvas
        self.x = x
        self.y = y
        self.d = d

    def to_canvas(self, x: float, y: float) -> Point:
        """Return the position of a relative point on the canvas."""
        return self.x + self.d * x, self.y + y

    def edges(self, x0: float, y0: float, x1: float, y1: float) -> tuple[float, ...]:
        """Return left, top, right and bottom of a relative rectangle on the canvas."""
        # Pillow refuses the edges of a mirrored rectangle in the wrong order
        left, right = sorted((self.x + self.d * x0, self.x + self.d * x1))
        return left, self.y + y0, right, self.y + y1

    def disc(
        self, x: float, y: float, rx: float, ry: float, fill: Colour, line: Colour | None = None
    ):
        """Draw an ellipse around (x, y).

        rx, ry: half its width and height
        line: colour of its outline
        """
        edges = self.edges(x - rx, y - ry, x + rx, y + ry)
        self.canvas.draw.ellipse(edges, fill=fill, outline=line, width=OUTLINE if line else 0)

    def circle(self, x: float, y: float, r: float, fill: Colour):
        """Draw a circle around (x, y)."""
        self.disc(x, y, r, r, fill)

    def limb(self, points: list[Point], width: float, fill: Colour):
        """Draw a thick line with round ends."""
        placed = [self.to_canvas(*point) for point in points]
        self.canvas.draw.line(placed, fill=fill, width=round(width), joint="curve")
        # Pillow ends thick lines bluntly
        for point in (points[0], points[-1]):
            self.circle(*point, width / 2 - 0.5, fill)

    def box(self, x0: float, y0: float, x1: float, y1: float, fill: Colour, radius: float = 0):
        """Draw a rectangle with round corners."""
        self.canvas.draw.rounded_rectangle(self.edges(x0, y0, x1, y1), radius, fill=fill, width=0)

    def shape(self, points: list[Point], fill: Colour):
        """Draw a polygon."""
        self.canvas.draw.polygon([self.to_canvas(*point) for point in points], fill=fill)

    def ball(self, x: float, y: float, r: float, fill: Colour):
        """Draw a ball with shadow and highlight."""
        self.circle(x, y, r, shade(fill, -0.25))
        self.circle(x - r * 0.08, y - r * 0.1, r * 0.86, fill)
        self.circle(x - r * 0.35, y - r * 0.4, r * 0.24, shade(fill, 0.65))

    def arc(self, edges: tuple, start: float, end: float, fill: Colour, width: int):
        """Draw a part of an ellipse's outline, between two angles in degrees."""
        self.canvas.draw.arc(self.edges(*edges), start, end, fill=fill, width=width)

    def half_disc(self, edges: tuple, fill: Colour, lower: bool = False):
        """Draw the upper or the lower half of an ellipse."""
        start = 0 if lower else 180
        self.canvas.draw.pieslice(self.edges(*edges), start, start + 180, fill=fill)


class Canvas(Pen):
    """An unfinished picture with its random source; as a pen, its origin is the top left corner.

    rng: every random number of a picture comes from it, so the order of the calls is fixed
    """

    def __init__(self, rng: Random, background: Image.Image):
        super().__init__(self, 0, 0, 1)
        self.rng = rng
        # gradients are cached and shared
        self.image = background.copy()
        self.draw = ImageDraw.Draw(self.image)

    def at(self, x: float, y: float = 0, d: int = 1) -> Pen:
        """Return a pen with another origin."""
        return Pen(self, x, y, d)

    def jitter(self, span: float) -> float:
        """Draw a number from [-span, span]."""
        return self.rng.uniform(-span, span)


def sky(rng: Random, time: str) -> Canvas:
    """Return a canvas with the sky of a time of day: sun, moon, stars or clouds."""
    c = Canvas(rng, gradient(*SKY[time]))
    x = rng.uniform(24, 168)
    if time == "day":
        c.circle(x, 22, 13, (255, 240, 120))
        _cloud(c, (x + 80) % 192, 26, (250, 252, 255))
    elif time == "sunset":
        c.circle(x, 66, 24, (255, 226, 120))
    elif time == "night":
        for _ in range(14):
            c.circle(rng.uniform(4, 188), rng.uniform(4, 90), 1.8, (255, 255, 220))
        c.circle(x, 26, 14, (250, 246, 214))
        # a disc in the colour of the sky cuts a crescent
        c.circle(x + 7, 22, 12, shade(SKY["night"][0], 0.04))
    else:
        for shift in (0, 66, 132):
            _cloud(c, (x + shift) % 192, 16, (92, 100, 112))
    return c


def _cloud(c: Canvas, x: float, y: float, fill: Colour):
    for dx, dy, r in ((-18, 4, 10), (0, -2, 15), (18, 4, 11)):
        c.disc(x + dx, y + dy, r * 1.3, r, fill)


def ground(c: Canvas, y: float, fill: Colour):
    """Draw the ground from the height y downwards, with a lighter edge."""
    c.box(0, y, LARGE, LARGE, fill)
    c.box(0, y, LARGE, y + 5, shade(fill, 0.18))


def finish(c: Canvas, time: str, rain: bool | None = None) -> Canvas:
    """Tint the whole picture with the light of the hour and draw rain over it.

    rain: None for rain at the time `rain` only
    """
    tint, strength = TINT[time]
    if strength:
        c.image = Image.blend(c.image, Image.new("RGB", c.image.size, tint), strength)
        c.draw = ImageDraw.Draw(c.image)
    if rain is None:
        rain = time == "rain"
    if rain:
        for i in range(14):
            x = c.rng.uniform(-6, 198)
            y = (i * 13.3 + c.jitter(8)) % 186
            c.draw.line((x, y, x - 5, y + 20), fill=(206, 224, 244), width=3)
    return c
