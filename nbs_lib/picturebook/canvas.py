"""The canvas of the scenes: a pen with flat, rounded and soft strokes. Lengths: 192 a side."""

from functools import cache
from random import Random

from PIL import Image, ImageDraw

from .paint import Colour, shade

UNITS = 192  # length of a side, as the scenes count
SCALE = 2  # pixels in a unit while drawing
LARGE = UNITS * SCALE  # pixels a side while drawing; reduced by three, edges are smooth
SIZE = 128  # pixels a side of a finished picture

Point = tuple[float, float]
# Steps of a rounded surface from its edge to its lightest place: share of the size, light.
# Six flat steps look smooth once the picture is reduced, and cost a tenth of a gradient.
STEPS = ((1.0, -0.24), (0.93, -0.16), (0.85, -0.09), (0.75, -0.02), (0.62, 0.04), (0.46, 0.09))
SOFT = 64  # pixels a side of the mask of a soft disc


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


@cache
def _soft_mask(strength: int) -> Image.Image:
    """Return a disc that fades to nothing at its edge; strength: at its middle, of 255."""
    distance = Image.radial_gradient("L").resize((SOFT, SOFT))  # 0 in the middle, 180 at a side
    # smooth at both ends
    return distance.point(lambda d: round(strength * max(0.0, 1 - (d / 178) ** 2) ** 2))


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
        """Return the position of a relative point, in pixels of the canvas."""
        return (self.x + self.d * x) * SCALE, (self.y + y) * SCALE

    def edges(self, x0: float, y0: float, x1: float, y1: float) -> tuple[float, ...]:
        """Return left, top, right and bottom of a relative rectangle, in pixels of the canvas."""
        # Pillow refuses the edges of a mirrored rectangle in the wrong order
        left, right = sorted((self.x + self.d * x0, self.x + self.d * x1))
        return left * SCALE, (self.y + y0) * SCALE, right * SCALE, (self.y + y1) * SCALE

    @property
    def light(self) -> Point:
        """The direction to the light, as the pen counts."""
        return self.d * self.canvas.side, -0.8

    def disc(self, x: float, y: float, rx: float, ry: float, fill: Colour):
        """Draw a flat ellipse around (x, y); rx, ry: half its width and height."""
        self.canvas.draw.ellipse(self.edges(x - rx, y - ry, x + rx, y + ry), fill=fill)

    def circle(self, x: float, y: float, r: float, fill: Colour):
        """Draw a flat circle around (x, y)."""
        self.disc(x, y, r, r, fill)

    def ball(self, x: float, y: float, rx: float, ry: float, fill: Colour):
        """Draw a rounded ellipse, lit from the side of the light."""
        lx, ly = self.light
        for size, light in STEPS:
            move = 0.8 * (1 - size)
            centre = (x + lx * rx * move, y + ly * ry * move)
            self.disc(*centre, rx * size, ry * size, shade(fill, light))

    def soft(self, x: float, y: float, rx: float, ry: float, fill: Colour, strength: float = 0.4):
        """Lay a disc without an edge over what is drawn: a shadow, a glow, a blush."""
        edges = self.edges(x - rx, y - ry, x + rx, y + ry)
        left, top, right, bottom = map(round, edges)
        size = (max(1, right - left), max(1, bottom - top))
        mask = _soft_mask(round(255 * strength)).resize(size)
        self.canvas.image.paste(fill, (left, top), mask)

    def line(self, points: list[Point], width: float, fill: Colour):
        """Draw a flat line with blunt ends."""
        placed = [self.to_canvas(*point) for point in points]
        self.canvas.draw.line(placed, fill=fill, width=round(width * SCALE), joint="curve")

    def strip(self, points: list[Point], width: float, fill: Colour):
        """Draw a flat line with round ends."""
        self.line(points, width, fill)
        # Pillow ends thick lines bluntly
        for point in (points[0], points[-1]):
            self.circle(*point, width / 2 - 0.25, fill)

    def limb(self, points: list[Point], width: float, fill: Colour):
        """Draw a round limb, lit from the side of the light."""
        lx, ly = self.light
        for size, light in STEPS:
            move = 0.4 * width * (1 - size)
            moved = [(x + lx * move, y + ly * move) for x, y in points]
            self.strip(moved, width * size, shade(fill, light))

    def box(self, x0: float, y0: float, x1: float, y1: float, fill: Colour, radius: float = 0):
        """Draw a flat rectangle with round corners."""
        edges = self.edges(x0, y0, x1, y1)
        self.canvas.draw.rounded_rectangle(edges, radius * SCALE, fill=fill, width=0)

    def cushion(self, x0: float, y0: float, x1: float, y1: float, fill: Colour, radius: float):
        """Draw a rounded rectangle whose edges are dark on the side that the light misses."""
        lx, _ = self.light
        depth = min(radius, 7)
        for step, light in enumerate((-0.2, -0.08, 0.0, 0.07)):
            inset = depth * step / 3
            # the light's edges come closer, the other edges move away
            left, right = x0 + inset * (1 - 0.7 * lx), x1 - inset * (1 + 0.7 * lx)
            top, bottom = y0 + 0.35 * inset, y1 - 1.2 * inset
            if left < right and top < bottom:
                corner = max(1.0, radius - inset)
                self.box(left, top, right, bottom, shade(fill, light), corner)

    def shape(self, points: list[Point], fill: Colour):
        """Draw a flat polygon."""
        self.canvas.draw.polygon([self.to_canvas(*point) for point in points], fill=fill)

    def arc(self, edges: tuple, start: float, end: float, fill: Colour, width: float):
        """Draw a part of an ellipse's outline, between two angles in degrees."""
        thick = max(1, round(width * SCALE))
        self.canvas.draw.arc(self.edges(*edges), start, end, fill=fill, width=thick)

    def pie(self, edges: tuple, start: float, end: float, fill: Colour):
        """Draw a sector of an ellipse, between two angles in degrees."""
        self.canvas.draw.pieslice(self.edges(*edges), start, end, fill=fill)

    def chord(self, edges: tuple, start: float, end: float, fill: Colour):
        """Draw what a straight line cuts off an ellipse, between two angles in degrees."""
        self.canvas.draw.chord(self.edges(*edges), start, end, fill=fill)


class Canvas(Pen):
    """An unfinished picture with its random source; as a pen, its origin is the top left corner.

    rng: every random number of a picture comes from it, so the order of the calls is fixed
    side: the side that the light comes from, -0.6 for left and 0.6 for right
    heads: middle and radius of each head, on which no rain falls
    """

    def __init__(self, rng: Random, background: Image.Image, side: float):
        super().__init__(self, 0, 0, 1)
        self.rng = rng
        self.side = side
        self.heads: list[tuple[float, float, float]] = []
        # gradients are cached and shared
        self.image = background.copy()
        self.draw = ImageDraw.Draw(self.image)

    def at(self, x: float, y: float = 0, d: int = 1) -> Pen:
        """Return a pen with another origin."""
        return Pen(self, x, y, d)

    def jitter(self, span: float) -> float:
        """Draw a number from [-span, span]."""
        return self.rng.uniform(-span, span)
