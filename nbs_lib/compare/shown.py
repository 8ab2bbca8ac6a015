"""What is drawn for looking alone: grids over two or three axes, the steps of a sampling, differences."""

from itertools import product
from typing import Any

import numpy as np
import torch

from ..axes import Axis
from ..config import Compare
from .kept import Kept
from .sample import Sampler

STRIP = 6
"""Steps of a sampling that are shown."""


def over_axes(kept: Kept, config: Compare, axes: list[Axis]) -> np.ndarray:
    """Pictures over two or three axes, sampled by tuned from the first prompt and seed where no axis says otherwise.

    uint8 [z, y, x, h, w, 3]; the axes are given as columns, rows, parts.
    """
    usual = {
        "prompt": config.prompts[0], "seed": config.seeds[0], "steps": config.steps, "w": None,
        "adapter_scale": config.adapter_scale, "scheduler": "",
        "contender": "guided" if any(axis.name == "w" for axis in axes) else "tuned",
    }  # fmt: skip
    ordered = list(reversed(axes))  # parts, rows, columns
    cells = [usual | dict(zip((axis.name for axis in ordered), values, strict=True))
             for values in product(*(axis.values for axis in ordered))]  # fmt: skip
    alike: dict[tuple, list[int]] = {}  # pictures that differ in prompt and seed alone are sampled together
    for i, cell in enumerate(cells):
        key = tuple(cell[name] for name in ("contender", "steps", "adapter_scale", "w", "scheduler"))
        alike.setdefault(key, []).append(i)
    images: list[Any] = [None] * len(cells)
    for (contender, *how), places in alike.items():
        asked = [cells[i]["prompt"] for i in places], [cells[i]["seed"] for i in places]
        for i, image in zip(places, kept.sample(contender, *asked, *how).images, strict=True):
            images[i] = image
    shape = [len(axis.values) for axis in ordered]
    return np.stack(images).reshape(*[1] * (3 - len(shape)), *shape, *images[0].shape)


@torch.no_grad()
def strip(
    sampler: Sampler, name: str, prompt: str, seed: int, steps: int, adapter_scale: float
) -> tuple[list[int], np.ndarray]:
    """The steps that are shown, and what the latents decode to after each: uint8 [n, h, w, 3]."""
    way = sampler.ways.of(name, steps, adapter_scale)
    wanted = sorted({round(each) for each in np.linspace(1, way.steps, min(STRIP, way.steps))})
    latents = []
    sampler.sample_way(way, [prompt], [seed], peek=lambda done, now: latents.append(now.clone()) if done in wanted else None)
    base, pipe = sampler.pipe_of(way)
    pictures = [(base.decode(pipe.vae, each)[0] / 2 + 0.5).clamp(0, 1) for each in latents]
    return wanted, (torch.stack(pictures) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How much pictures uint8 [n, h, w, 3] differ, as a map of each: the mean over its channels, [n, h, w] in 0 to 1."""
    return np.abs(a.astype(np.float64) - b).mean(-1) / 255
