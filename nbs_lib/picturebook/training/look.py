"""Figures for the notebook: the book, reconstructions, and pictures by guidance scale."""

from pathlib import Path
from random import Random
from textwrap import fill

import torch
from matplotlib.figure import Figure

from ...config import REFERENCE_PROMPTS
from ...images.convert import to_uint8
from ...models import find_base
from ..captions import SCENE_KINDS, draw_caption, draw_values
from ..dataset import draw_book
from ..draw import draw_picture
from .measure import sample, unseen_icons
from .pictures.icons import IconPackages
from .vae import reconstruction_psnr, vae_pixels


def sheet(pictures: list[list], titles: list[list[str]], width: float = 1.5) -> Figure:
    """Return a figure with rows of pictures, each with a title below it.

    width: of a picture, in inches
    """
    rows = len(pictures)
    columns = max(map(len, pictures))
    size = (columns * width, rows * (width + 0.42))
    figure = Figure(size, dpi=100, layout="constrained")
    for row, cells in enumerate(figure.subplots(rows, columns, squeeze=False)):
        # also those without a picture
        for axes in cells:
            axes.axis("off")
        for axes, picture, title in zip(cells, pictures[row], titles[row], strict=False):
            axes.imshow(picture, interpolation="nearest")
            axes.set_title(fill(title, 30), fontsize=6, y=-0.04, va="top")
    return figure


def book_sheet(seed: int = 0, columns: int = 6) -> Figure:
    """Return a figure with a row of captioned pictures for each kind of scene."""
    rng = Random(f"sheet {seed}")
    pictures = []
    titles = []
    for kind in SCENE_KINDS:
        scenes = [draw_values(kind, rng) for _ in range(columns)]
        pictures.append([draw_picture(scene, rng) for scene in scenes])
        titles.append([draw_caption(scene, rng).text for scene in scenes])
    return sheet(pictures, titles)


@torch.no_grad()
def reconstructions(folder: Path, packages: IconPackages | None, count: int = 8) -> Figure:
    """Return a figure of pictures above their reconstructions by the VAE.

    They are held-out scenes and, with the packages, icons of the style that no training saw.
    """
    vae = find_base(str(folder)).vae()
    pictures = []
    titles = []
    drawn = [draw_book(count, seed=2, held_out=True).images]
    if packages is not None:
        drawn.append(unseen_icons(packages, count))
    for images in drawn:
        # the mean, not a sample: a reconstruction without noise
        decoded = vae.decode(vae.encode(vae_pixels(images)).latent_dist.mean).sample
        errors = reconstruction_psnr(vae, images).tolist()
        pictures += [list(images), list(to_uint8(decoded))]
        titles += [["drawn"] * count, [f"through the VAE: {error:.1f} dB" for error in errors]]
    return sheet(pictures, titles)


def guidance_sheet(folder: Path, scales: list[float], seed: int = 0) -> Figure:
    """Return a figure with a row of the reference prompts for each scale, from equal noise."""
    pipeline = find_base(str(folder)).pipeline()
    pictures = []
    titles = []
    for w in scales:
        pictures.append(list(sample(pipeline, REFERENCE_PROMPTS, w, seed)))
        titles.append([f"w = {w:g}: {prompt}" for prompt in REFERENCE_PROMPTS])
    return sheet(pictures, titles)
