"""An export's pictures, drawn by a stock pipeline and compared with the run's."""

from pathlib import Path

import diffusers
import numpy as np
import torch
from diffusers import DiffusionPipeline
from safetensors import SafetensorError

from ..compare.sampling.sampler import Sampler, seed_steps
from ..config import REFERENCE_PROMPTS
from ..images.convert import unit_to_uint8
from ..models.sampling_recipe import scheduler_options, step_options
from .formats import Source, stock_pipeline
from .kohya import ExportError

PROMPTS = REFERENCE_PROMPTS[:2]
SEEDS = [0, 1]
# steps of the pictures that an export is checked by; few-step adapters have their own
STEPS = 4
# largest difference between two pictures, in 1/255: what rounding makes of equal ones
MAX_DIFFERENCE = 1
LOAD_ERRORS = (ValueError, RuntimeError, OSError, KeyError, SafetensorError)


def draw_with_run(sampler: Sampler) -> np.ndarray:
    """Return the run's own pictures, uint8 [n, h, w, 3]."""
    with _exact_convolutions():
        settings = sampler.resolver.resolve("tuned", STEPS)
        return sampler.sample(settings, PROMPTS, SEEDS).images


def check_pictures(part: Path, to: str, source: Source, expected: np.ndarray, sampler: Sampler):
    """Check that a stock pipeline draws the run's pictures from an export.

    part: folder of the export
    expected: the run's pictures, uint8 [n, h, w, 3]
    sampler: the run's

    Errors: ExportError if the pictures differ by more than rounding, or the export does not load.
    """
    name = f"the {to} export of {source.run.folder}"
    try:
        with _exact_convolutions():
            pipe = stock_pipeline(part, to, source).to(sampler.device)
            pictures = draw_references(pipe, source.pixels, sampler)
    except ExportError:
        # a RuntimeError too, but one that says what to do already
        raise
    except LOAD_ERRORS as failure:
        reason = " ".join(str(failure).split())
        raise ExportError(f"{name} does not load in stock diffusers: {reason}") from failure
    # uint8 would wrap around below zero
    difference = int(np.abs(pictures.astype(int) - expected.astype(int)).max())
    if difference > MAX_DIFFERENCE:
        raise ExportError(
            f"{name} does not draw the run's pictures: they differ by up to {difference} of 255, "
            f"allowed is {MAX_DIFFERENCE}; nothing of it was kept, "
            "and the adapter in the run is as it was"
        )


def draw_references(pipe: DiffusionPipeline, pixels: int, sampler: Sampler) -> np.ndarray:
    """Return the pictures of a stock pipeline, uint8 [n, pixels, pixels, 3].

    Errors: ExportError if they hold NaN.
    """
    # a bar would stay in a notebook for ever
    pipe.set_progress_bar_config(disable=True)
    recipe = sampler.resolver.sampling | {"steps": sampler.resolver.tuned_steps or STEPS}
    # its own configuration stays: it says how the base predicts
    scheduler_class = getattr(diffusers, recipe["scheduler"])
    pipe.scheduler = scheduler_class.from_config(pipe.scheduler.config, **scheduler_options(recipe))
    # the run's sampler draws its noise on the CPU as well
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in SEEDS]
    seed_steps(pipe.scheduler, generators)
    images = pipe(
        PROMPTS,
        **step_options(recipe["scheduler"], recipe["timestep_spacing"], recipe["steps"]),
        guidance_scale=recipe["guidance_scale"],
        generator=generators,
        height=pixels,
        width=pixels,
        output_type="np",
    ).images
    # compared as uint8, NaN would look like black
    if not np.isfinite(images).all():
        raise ExportError(
            f"{sampler.resolver.learned} makes pictures that are no numbers (NaN) on base "
            f"{sampler.base.name!r}, which no program can show; "
            "train it again with a lower learning_rate, or on another base"
        )
    return unit_to_uint8(images)


def _exact_convolutions():
    """Return a context of full fp32 on a GPU too, where convolutions round to TF32 by default."""
    return torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
