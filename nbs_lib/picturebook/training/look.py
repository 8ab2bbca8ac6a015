"""What there is to look at while a base is made: the book, reconstructions, and the base's pictures by guidance scale."""

from pathlib import Path
from random import Random
from textwrap import fill

import numpy as np
import torch
from matplotlib.figure import Figure

from ...config import REFERENCE_PROMPTS
from ...images.convert import to_uint8
from ...models import StableDiffusion
from ..captions import ATTRIBUTES, KINDS, Scene, draw_caption
from ..dataset import draw_book
from ..draw import draw
from .measure import sample
from .vae import vae_pixels


def sheet(pictures: list[list], titles: list[list[str]], width: float = 1.5) -> Figure:
    """Rows of pictures, each with a few words beneath."""
    rows, columns = len(pictures), max(map(len, pictures))
    figure = Figure((columns * width, rows * (width + 0.42)), dpi=100, layout="constrained")
    for row, cells in enumerate(figure.subplots(rows, columns, squeeze=False)):
        for column, axes in enumerate(cells):
            axes.axis("off")
            if column < len(pictures[row]):
                axes.imshow(pictures[row][column], interpolation="nearest")
                axes.set_title(fill(titles[row][column], 30), fontsize=6, y=-0.04, va="top")
    return figure


def book_sheet(seed: int = 0, each: int = 6) -> Figure:
    """A row for each kind of scene, with captions."""
    rng = Random(f"sheet {seed}")
    pictures, titles = [], []
    for kind in KINDS:
        scenes = [
            Scene(kind, tuple(rng.choice(values) for values in ATTRIBUTES[kind].values()))
            for _ in range(each)
        ]
        pictures.append([draw(scene, rng) for scene in scenes])
        titles.append([draw_caption(scene, rng).text for scene in scenes])
    return sheet(pictures, titles)


@torch.no_grad()
def reconstructions(folder: Path, count: int = 8) -> Figure:
    """Held-out pictures above, what the VAE makes of them below."""
    book, vae = draw_book(count, seed=2, held_out=True), StableDiffusion("embedded", folder).vae()
    back = vae.decode(vae.encode(vae_pixels(book.images)).latent_dist.mean).sample
    return sheet(
        [list(book.images), list(to_uint8(back))], [["drawn"] * count, ["through the VAE"] * count]
    )


def guidance_sheet(folder: Path, scales: list[float], seed: int = 0) -> Figure:
    """The ten prompts of the reference comparison: a row for each guidance scale, from equal noise."""
    pipeline = StableDiffusion("embedded", folder).pipeline()
    pictures: list[np.ndarray] = [sample(pipeline, REFERENCE_PROMPTS, w, seed) for w in scales]
    return sheet(
        [list(row) for row in pictures],
        [[f"w = {w:g}: {p}" for p in REFERENCE_PROMPTS] for w in scales],
    )
