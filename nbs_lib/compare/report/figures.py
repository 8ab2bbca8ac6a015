"""The figures of a comparison: pictures on pages, numbers drawn."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from PIL import Image

from ...config import Compare
from ...config.grid_axes import Axis
from ...images import grid as pages
from ..progress import steps
from ..sampling.sample_cache import CachedSamples
from ..sampling.sampler import Sampler
from . import plots
from .grids import denoising_strip, difference

COLUMNS = 5
"""Pictures whose differences are shown."""


def draw_figures(
    sampler: Sampler, config: Compare, folder: Path, drawn: dict[str, CachedSamples], contenders: dict[str, dict],
    to_guided: dict[str, dict], turned: dict[str, Any] | None, over: np.ndarray | None, of: tuple[list[str], list[int]],
) -> dict[str, str | None]:  # fmt: skip
    """Write the figures, as far as there is something to be seen on them; by what they show, their files. over: pictures over
    the axes."""
    prompts, seeds = of
    rated = {
        name: told["caption_first"] for name, told in contenders.items() if told["caption_first"]
    }
    notes = {
        name: f"{told['nfe']:g} NFE\n{told['seconds']:.3g} s a picture"
        for name, told in contenders.items()
    }
    notes["guided"] += f"\nw = {sampler.w_train:g}"
    rows = [pages.GridRow(name, each.images, notes[name]) for name, each in drawn.items()]
    quality = {name: rate["rate"] for name, rate in rated.items()} or {
        name: told["ssim"] for name, told in to_guided.items() if told["ssim"] is not None} | {"guided": 1.0}  # fmt: skip
    few = slice(0, COLUMNS)
    pair = drawn["guided"].images[few], drawn["tuned"].images[few]
    drawing: dict[str, Callable[[], Any] | None] = {
        "grid": lambda: pages.labelled_grid(rows, prompts, seeds),
        "rates": (lambda: plots.bars(rated, next(iter(rated.values()))["count"], {name: told["nfe"] for name, told in
                  contenders.items()})) if rated else None,
        "frontier": lambda: plots.frontier(quality, contenders, bool(rated)),
        "dial": (lambda: plots.dial(turned, sampler.w_train)) if turned else None,
        "differences": lambda: differences_page(("guided", "tuned"), *pair, difference(*pair), prompts[few], seeds[few]),
        "steps": lambda: _steps(sampler, config),
        "axes": (lambda: axes_page(over, config.grid_axes)) if over is not None else None,
    }  # fmt: skip
    for name in steps("figures", [name for name, draw in drawing.items() if draw], "figure"):
        figure = drawing[name]()
        (figure.save if hasattr(figure, "save") else figure.savefig)(folder / f"{name}.png")
    return {name: f"{name}.png" if draw else None for name, draw in drawing.items()}


def _steps(sampler: Sampler, config: Compare) -> Any:
    """The first prompt on its way from noise, guided and tuned."""
    told = {name: denoising_strip(sampler, name, config.prompts[0], config.seeds[0], config.steps, config.adapter_scale)
            for name in ("guided", "tuned")}  # fmt: skip
    of = [
        pages.captioned_table(images[None], [f"step {step}" for step in steps], [name])
        for name, (steps, images) in told.items()
    ]
    if told["guided"][0] == told["tuned"][0]:
        steps, _ = told["guided"]
        return pages.captioned_table(
            np.stack([images for _, images in told.values()]),
            [f"step {step}" for step in steps],
            list(told),
        )
    return pages.stack_vertically(of)


def axes_page(pictures: np.ndarray, axes: Sequence[Axis]) -> Image.Image:
    """Pictures uint8 [z, y, x, h, w, 3] over two or three axes: columns, rows, parts; a table for each part."""
    columns, rows, *parts = axes
    labels = [[axis.label(value) for value in axis.values] for axis in (columns, rows)]
    titles = (
        [f"{parts[0].name}: {parts[0].label(value)}" for value in parts[0].values]
        if parts
        else [""]
    )
    return pages.stack_vertically(
        [
            pages.captioned_table(each, *labels, title)
            for each, title in zip(pictures, titles, strict=True)
        ]
    )


def differences_page(
    names: tuple[str, str],
    a: np.ndarray,
    b: np.ndarray,
    maps: np.ndarray,
    prompts: Sequence[str],
    seeds: Sequence[int],
) -> Image.Image:
    """Two contenders' pictures uint8 [n, h, w, 3] and the maps [n, h, w] of where they differ; columns as the grid's."""
    most = max(float(maps.max()), 1 / 255)
    heat = (colormaps["magma"](maps / most)[..., :3] * 255).round().astype(np.uint8)
    labels = [*names, f"difference: black is none, white {100 * most:.0f} % of the range"]
    notes = [f"seed {seed}" for seed in seeds] if len(set(seeds)) > 1 else []
    return pages.captioned_table(np.stack([a, b, heat]), prompts, labels, notes=notes)
