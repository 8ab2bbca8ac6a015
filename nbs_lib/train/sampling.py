"""Sampling during a training: latents from noise, by the student or by its teacher."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..diffusion import classifier_free_guidance
from ..models import TextEmbeddings
from ..models.sampling_recipe import step_options


@dataclass(frozen=True)
class Passes:
    """A network and how it is sampled.

    predict: takes x_t [n, c, h, w], t [n] and the text, returns the prediction.
    guided: True for two passes a step.
    timestep_spacing: "" for the scheduler's own.
    """

    predict: Callable[..., Tensor]
    scheduler: Any
    steps: int
    guided: bool
    timestep_spacing: str = ""


@torch.no_grad()
def sample(
    passes: Passes,
    noise: Tensor,
    text: TextEmbeddings,
    uncond: TextEmbeddings,
    w: float,
) -> Tensor:
    """Return scaled latents [n, c, h, w].

    noise: standard normal [n, c, h, w].
    w: guidance scale.
    """
    scheduler = passes.scheduler
    options = step_options(type(scheduler).__name__, passes.timestep_spacing, passes.steps)
    scheduler.set_timesteps(device=noise.device, **options)
    # for a scheduler that adds noise in each step, as LCM's does
    generator = torch.Generator().manual_seed(0)
    # a flow begins with the noise itself
    x = noise * getattr(scheduler, "init_noise_sigma", 1.0)
    for t in scheduler.timesteps:
        times = t.expand(len(x))
        prediction = passes.predict(x, times, *text)
        if passes.guided:
            unguided = passes.predict(x, times, *uncond)
            prediction = classifier_free_guidance(unguided, prediction, w)
        x = scheduler.step(prediction, t, x, generator=generator).prev_sample
    return x
