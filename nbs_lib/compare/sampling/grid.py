"""A grid of pictures over two or three axes."""

import warnings
from dataclasses import dataclass
from itertools import product

import numpy as np

from ...config import Compare
from .sample_cache import SampleCache
from .settings import SamplingSettings, SettingsResolver


@dataclass(frozen=True)
class GridCell:
    """One picture of a grid."""

    prompt: str
    seed: int
    settings: SamplingSettings


def grid_cells(resolver: SettingsResolver, config: Compare) -> list[GridCell]:
    """Return the cells of a comparison's grid: parts first, then rows, then columns.

    Where no axis says otherwise, `tuned` samples the first prompt and seed, or `guided` if w
    varies.
    Errors: ValueError for an axis that changes no picture.
    """
    axes = config.grid_axes
    if not axes:
        return []
    names = [axis.name for axis in reversed(axes)]
    default = {
        "prompt": config.prompts[0],
        "seed": config.seeds[0],
        "steps": None,
        "w": None,
        "adapter_scale": config.adapter_scale,
        "scheduler": "",
        # tuned holds its guidance, so that w would guide it twice
        "contender": "guided" if "w" in names else "tuned",
    }
    combinations = product(*(axis.values for axis in reversed(axes)))
    options = [default | dict(zip(names, values, strict=True)) for values in combinations]
    for axis in axes:
        if axis.name in ("prompt", "seed", "contender"):
            continue
        # in every cell: an axis may matter to one contender and not to another
        for cell in options:
            settings = {_settings(resolver, cell | {axis.name: v}, config) for v in axis.values}
            # labels would promise a difference that the pictures do not show
            if len(settings) < len(axis.values):
                raise ValueError(
                    f"parameter axes: {axis.name} changes nothing for {cell['contender']!r}; "
                    "leave it out"
                )
    return [
        GridCell(cell["prompt"], cell["seed"], _settings(resolver, cell, config))
        for cell in options
    ]


def _settings(resolver, cell, config):
    name = cell["contender"]
    steps = config.steps
    if cell["steps"]:
        # in the name too, or else a few-step adapter's own steps would go before the axis
        name = f"{name} in {cell['steps']} steps"
        steps = cell["steps"]
    with warnings.catch_warnings():
        # guidance of an adapter that holds its own: the axis asks for it
        warnings.simplefilter("ignore")
        return resolver.resolve(name, steps, cell["adapter_scale"], cell["w"], cell["scheduler"])


def sample_grid(
    cache: SampleCache,
    cells: list[GridCell],
    config: Compare,
) -> np.ndarray:
    """Return the pictures of a grid: uint8 [parts, rows, columns, h, w, 3]."""
    # cells that differ in prompt and seed alone are sampled together
    groups = {}
    for index, cell in enumerate(cells):
        groups.setdefault((cell.settings.contender, cell.settings), []).append(index)
    images = [None] * len(cells)
    for (_, settings), indices in groups.items():
        prompts = [cells[index].prompt for index in indices]
        seeds = [cells[index].seed for index in indices]
        samples = cache.get_or_sample(settings, prompts, seeds)
        for index, image in zip(indices, samples.images, strict=True):
            images[index] = image
    shape = [len(axis.values) for axis in reversed(config.grid_axes)]
    # a grid of two axes has one part
    missing_axes = [1] * (3 - len(shape))
    return np.stack(images).reshape(*missing_axes, *shape, *images[0].shape)
