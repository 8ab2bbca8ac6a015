"""A scene's picture."""

from collections.abc import Callable
from random import Random

from PIL import Image

from .captions import Scene
from .figures import draw_ball, draw_dancing, draw_fence, draw_tv
from .portraits import draw_cat, draw_lemon, draw_soda
from .still_scenes import draw_beach, draw_cake, draw_road

DRAW: dict[str, Callable[..., Image.Image]] = {
    "tv": draw_tv,
    "dancing": draw_dancing,
    "fence": draw_fence,
    "ball": draw_ball,
    "beach": draw_beach,
    "road": draw_road,
    "cake": draw_cake,
    "soda": draw_soda,
    "lemon": draw_lemon,
    "cat": draw_cat,
}


def draw_picture(scene: Scene, rng: Random) -> Image.Image:
    """Return the picture of a scene, 128 × 128 RGB.

    The scene's values fix what the picture shows; rng varies positions, faces and light.
    """
    return DRAW[scene.kind](rng, **scene.attributes)
