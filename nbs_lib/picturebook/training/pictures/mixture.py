"""The pictures that the VAE is trained on: scenes, icons and textures."""

from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image, ImageOps

from ...canvas import SIZE
from ...dataset import draw_book
from .icons import Icon
from .textures import draw_texture, gradient_between, random_colour

# Parts of the mixture. Textures are few: they only keep the code from knowing two worlds alone.
SCENES = 0.5
ICONS = 0.42
WHITE = (255, 255, 255)


def draw_mixture(icons: Sequence[Icon], count: int, seed: int) -> np.ndarray:
    """Return scenes, icons and textures, in this order, uint8 [count, 128, 128, 3]."""
    scenes = round(count * SCENES)
    on_backgrounds = round(count * ICONS)
    rng = Random(f"mixture {seed}")
    # one array from the start, because lists of arrays would take the memory twice
    pictures = np.empty((count, SIZE, SIZE, 3), np.uint8)
    pictures[:scenes] = draw_book(scenes, seed).images
    for i in range(scenes, scenes + on_backgrounds):
        pictures[i] = place_icon(rng.choice(icons), rng)
    for i in range(scenes + on_backgrounds, count):
        pictures[i] = draw_texture(rng)
    return pictures


def place_icon(icon: Icon, rng: Random) -> Image.Image:
    """Return an icon in a random size and place on a random background, perhaps mirrored."""
    picture = Image.fromarray(icon.picture)
    if rng.random() < 0.5:
        picture = ImageOps.mirror(picture)
    # at times a little larger than the picture, as photos of things are
    side = round(SIZE * rng.uniform(0.5, 1.05))
    background = _background(rng)
    place = (_offset(side, rng), _offset(side, rng))
    picture = picture.resize((side, side))
    background.paste(picture, place, picture)
    return background


def _offset(side: int, rng: Random) -> int:
    low, high = sorted((0, SIZE - side))
    return rng.randint(low, high)


def _background(rng: Random) -> Image.Image:
    # icons mostly stand on white
    kind = rng.random()
    if kind < 0.4:
        return Image.new("RGB", (SIZE, SIZE), WHITE)
    if kind < 0.6:
        return Image.new("RGB", (SIZE, SIZE), random_colour(rng))
    return gradient_between(random_colour(rng), random_colour(rng), rng.uniform(0, 360))


def on_white(icon: Icon) -> np.ndarray:
    """Return an icon in its own size on white, uint8 [128, 128, 3]."""
    picture = Image.fromarray(icon.picture)
    background = Image.new("RGB", picture.size, WHITE)
    background.paste(picture, (0, 0), picture)
    return np.asarray(background)


def stored_mixture(folder: Path, icons: Sequence[Icon], count: int, seed: int) -> np.ndarray:
    """Return a mixture that is drawn once and then read from `folder`."""
    file = folder / f"mixture-{count}-{seed}.npy"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        with part.open("wb") as opened:
            np.save(opened, draw_mixture(icons, count, seed))
        part.replace(file)
    return np.load(file)
