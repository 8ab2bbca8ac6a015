"""The figures of a comparison: pictures in grids, and plots."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from PIL import Image

from ...config.grid_axes import Axis
from ...images import grid
from ...images.convert import to_uint8
from ..evaluate import Evaluation
from ..measurements import counted
from . import plots

COLUMNS = 5  # pictures in the figure of differences
MAX_STEPS = 6  # steps of a sampling that are shown
MAX_OWN = 6  # own pictures that are shown


def draw_figures(evaluation: Evaluation, folder: Path) -> dict[str, str | None]:
    """Write the figures; return their files by name, None for a figure with nothing to show."""
    files = {}
    for name, draw in counted("figures", FIGURES.items(), "figure"):
        figure = draw(evaluation)
        files[name] = None if figure is None else f"{name}.png"
        if isinstance(figure, Figure):
            figure.savefig(folder / f"{name}.png")
        elif figure is not None:
            figure.save(folder / f"{name}.png")
    return files


def all_pictures(evaluation: Evaluation) -> Image.Image:
    """Return a grid of all pictures: a row for each contender."""
    rows = []
    for name, samples in evaluation.samples.items():
        costs = evaluation.results["contenders"][name]
        note = f"{costs['nfe']:g} NFE\n{costs['seconds']:.3g} s a picture"
        if name == "guided":
            note += f"\nw = {evaluation.results['w_train']:g}"
        rows.append(grid.GridRow(name, samples.images, note))
    return grid.labelled_grid(rows, evaluation.prompts, evaluation.seeds)


def own_pictures(evaluation: Evaluation) -> Image.Image | None:
    """Return own pictures over those drawn for their captions before and after; None of none."""
    own = evaluation.own
    if own is None:
        return None
    labels = {"guided": "before: the base", "tuned": "after: tuned"}
    pictures = [own.images, *(own.drawn[name] for name in labels)]
    # captions of the first ones only: a page of twelve would be too wide to read
    return grid.captioned_table(
        np.stack(pictures)[:, :MAX_OWN], own.captions[:MAX_OWN], ["yours", *labels.values()]
    )


def caption_rates(evaluation: Evaluation) -> Figure | None:
    """Return bars of the caption accuracy; None without captions."""
    rates = _rates(evaluation)
    if not rates:
        return None
    nfe = {name: costs["nfe"] for name, costs in evaluation.results["contenders"].items()}
    return plots.rate_bars(rates, next(iter(rates.values()))["count"], nfe)


def _rates(evaluation):
    contenders = evaluation.results["contenders"].items()
    return {name: row["caption_first"] for name, row in contenders if row["caption_first"]}


def frontier(evaluation: Evaluation) -> Figure:
    """Return quality against cost: the caption accuracy, or else the similarity to guided's."""
    quality = {name: rate["rate"] for name, rate in _rates(evaluation).items()}
    # without captions, the similarity to guided is what is left to order contenders by
    rated = bool(quality)
    if not rated:
        for name, row in evaluation.results["contenders"].items():
            if row["fidelity"] and row["fidelity"]["ssim"]:
                quality[name] = row["fidelity"]["ssim"]["value"]
        quality["guided"] = 1.0
    return plots.frontier(quality, evaluation.results["contenders"], rated)


def dial(evaluation: Evaluation) -> Figure | None:
    """Return a plot of the dial; None if it was not measured."""
    measured = evaluation.results["dial"]
    if not measured or not measured["turns"]:
        return None
    return plots.dial(measured["turns"])


def differences(evaluation: Evaluation) -> Image.Image:
    """Return the first pictures of guided and tuned, and maps of their differences."""
    first = slice(0, COLUMNS)
    guided, tuned = (evaluation.samples[name].images[first] for name in ("guided", "tuned"))
    return differences_page(
        ("guided", "tuned"),
        guided,
        tuned,
        evaluation.prompts[first],
        evaluation.seeds[first],
    )


def differences_page(
    names: tuple[str, str],
    a: np.ndarray,
    b: np.ndarray,
    prompts: Sequence[str],
    seeds: Sequence[int],
) -> Image.Image:
    """Return rows of two contenders' pictures uint8 [n, h, w, 3] and of their differences."""
    maps = np.abs(a.astype(np.float64) - b).mean(-1) / 255
    # one scale for all maps, and not 0 if the pictures are equal
    largest = max(float(maps.max()), 1 / 255)
    # magma grows in lightness, so that it can be read in grey too
    heat = (colormaps["magma"](maps / largest)[..., :3] * 255).round().astype(np.uint8)
    scale = f"difference: black is none, white {100 * largest:.0f} % of the range"
    # a prompt's columns differ in their seeds alone
    notes = [f"seed {seed}" for seed in seeds] if len(set(seeds)) > 1 else []
    return grid.captioned_table(np.stack([a, b, heat]), prompts, [*names, scale], notes=notes)


def denoising_steps(evaluation: Evaluation) -> Image.Image:
    """Return the first prompt on its way from noise to a picture, guided and tuned."""
    tables = []
    strips = {name: denoising_strip(evaluation, name) for name in ("guided", "tuned")}
    (guided_steps, guided), (tuned_steps, tuned) = strips.values()
    if guided_steps == tuned_steps:
        rows = np.stack([guided, tuned])
        return grid.captioned_table(rows, _step_labels(guided_steps), list(strips))
    # a few-step adapter has other steps, and so its own labels
    for name, (steps, images) in strips.items():
        tables.append(grid.captioned_table(images[None], _step_labels(steps), [name]))
    return grid.stack_vertically(tables)


def _step_labels(steps):
    return [f"step {step}" for step in steps]


@torch.no_grad()
def denoising_strip(evaluation: Evaluation, name: str) -> tuple[list[int], np.ndarray]:
    """Return the steps to show, and the latents decoded after each: uint8 [n, h, w, 3]."""
    sampler = evaluation.sampler
    config = evaluation.config
    settings = sampler.resolver.resolve(name, config.steps, config.adapter_scale)
    n_shown = min(MAX_STEPS, settings.steps)
    steps = sorted({round(step) for step in np.linspace(1, settings.steps, n_shown)})
    latents = []

    def on_latents(step, now):
        if step in steps:
            # a copy: the scheduler may reuse the tensor
            latents.append(now.clone())

    sampler.sample(settings, config.prompts[:1], config.seeds[:1], on_latents=on_latents)
    base, pipe = sampler.pipelines.for_settings(settings)
    return steps, to_uint8(torch.cat([base.decode(pipe.vae, step) for step in latents]))


def axes_grid(evaluation: Evaluation) -> Image.Image | None:
    """Return the grid over the axes; None without axes."""
    if evaluation.grid is None:
        return None
    return axes_page(evaluation.grid, evaluation.config.grid_axes)


def axes_page(pictures: np.ndarray, axes: Sequence[Axis]) -> Image.Image:
    """Return a table of pictures for each part of a grid.

    pictures: uint8 [parts, rows, columns, h, w, 3]
    axes: columns, rows, and the parts of three
    """
    columns, rows, *parts = axes
    column_labels = [columns.label(value) for value in columns.values]
    row_labels = [rows.label(value) for value in rows.values]
    titles = [""]
    if parts:
        [part] = parts
        titles = [f"{part.name}: {part.label(value)}" for value in part.values]
    tables = []
    for images, title in zip(pictures, titles, strict=True):
        tables.append(grid.captioned_table(images, column_labels, row_labels, title))
    return grid.stack_vertically(tables)


# The figures by the names of their files.
FIGURES: dict[str, Callable[[Evaluation], Image.Image | Figure | None]] = {
    "own": own_pictures,
    "grid": all_pictures,
    "rates": caption_rates,
    "frontier": frontier,
    "dial": dial,
    "differences": differences,
    "steps": denoising_steps,
    "axes": axes_grid,
}
