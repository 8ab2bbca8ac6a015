"""What is drawn for looking alone: grids over two or three axes, the steps of a sampling, differences."""

import warnings
from itertools import product
from typing import Any

import numpy as np
import torch

from ...config import Compare
from ...config.grid_axes import Axis
from ...images.convert import to_uint8
from ..sampling.sample_cache import SampleCache
from ..sampling.sampler import Sampler
from ..sampling.settings import SamplingSettings

STRIP = 6
"""Steps of a sampling that are shown."""


def grid_cells(sampler: Sampler, config: Compare, axes: list[Axis]) -> list[dict[str, Any]]:
    """What is sampled for each place of a grid, parts first, then rows, then columns; where no axis says otherwise, the first
    prompt and seed by tuned, or by guided where w varies.

    Errors: ValueError for an axis along which nothing varies: its labels would promise what the pictures do not show.
    """
    usual = {
        "prompt": config.prompts[0], "seed": config.seeds[0], "steps": None, "w": None,
        "adapter_scale": config.adapter_scale, "scheduler": "",
        "contender": "guided" if any(axis.name == "w" for axis in axes) else "tuned",
    }  # fmt: skip
    ordered = list(reversed(axes))
    cells = [usual | dict(zip((axis.name for axis in ordered), values, strict=True))
             for values in product(*(axis.values for axis in ordered))]  # fmt: skip
    for axis in axes:
        for cell in cells if axis.name not in ("prompt", "seed", "contender") else ():
            ways = {
                cell_settings(sampler, cell | {axis.name: value}, config.steps)
                for value in axis.values
            }
            if len(ways) < len(axis.values):
                raise ValueError(
                    f"parameter axes: {axis.name} changes nothing for {cell['contender']!r}; leave it out"
                )
    return cells


def cell_arguments(cell: dict[str, Any], steps: int) -> tuple:
    """Of a cell what `Ways.of` and `Kept.sample` take. Its steps go before those of a few-step adapter itself."""
    name = (
        cell["contender"]
        if cell["steps"] is None
        else f"{cell['contender']} in {cell['steps']} steps"
    )
    return name, cell["steps"] or steps, cell["adapter_scale"], cell["w"], cell["scheduler"]


def cell_settings(sampler: Sampler, cell: dict[str, Any], steps: int) -> SamplingSettings:
    """How a cell is sampled."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of guidance on what holds its own: it was asked for
        return sampler.ways.of(*cell_arguments(cell, steps))


def sample_axes(kept: SampleCache, config: Compare, axes: list[Axis]) -> np.ndarray:
    """Pictures over two or three axes, given as columns, rows, parts: uint8 [z, y, x, h, w, 3]. Errors: as of `cells_of`."""
    cells = grid_cells(kept.sampler, config, axes)
    alike: dict[
        tuple, list[int]
    ] = {}  # pictures that differ in prompt and seed alone are sampled together
    for i, cell in enumerate(cells):
        alike.setdefault(cell_arguments(cell, config.steps), []).append(i)
    images: list[Any] = [None] * len(cells)
    for (contender, *how), places in alike.items():
        drawn = kept.sample(
            contender,
            [cells[i]["prompt"] for i in places],
            [cells[i]["seed"] for i in places],
            *how,
        )
        for i, image in zip(places, drawn.images, strict=True):
            images[i] = image
    shape = [len(axis.values) for axis in reversed(axes)]
    return np.stack(images).reshape(*[1] * (3 - len(shape)), *shape, *images[0].shape)


@torch.no_grad()
def denoising_strip(
    sampler: Sampler, name: str, prompt: str, seed: int, steps: int, adapter_scale: float
) -> tuple[list[int], np.ndarray]:
    """The steps that are shown, and what the latents decode to after each: uint8 [n, h, w, 3]."""
    way = sampler.ways.of(name, steps, adapter_scale)
    wanted = sorted({round(each) for each in np.linspace(1, way.steps, min(STRIP, way.steps))})
    latents = []
    sampler.sample_way(
        way,
        [prompt],
        [seed],
        peek=lambda done, now: latents.append(now.clone()) if done in wanted else None,
    )
    base, pipe = sampler.pipe_of(way)
    return wanted, to_uint8(torch.cat([base.decode(pipe.vae, each) for each in latents]))


def difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How much pictures uint8 [n, h, w, 3] differ, as a map of each: the mean over its channels, [n, h, w] in 0 to 1."""
    return np.abs(a.astype(np.float64) - b).mean(-1) / 255
