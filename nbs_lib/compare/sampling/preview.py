"""Previews while sampling: the predicted x_0 in colours, without the VAE."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path

import numpy as np
import torch
from diffusers import SchedulerMixin
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from ...images.convert import to_tensor, to_uint8

MAX_FITTED = 8  # pictures of a batch that a fit uses; one has more pixels than unknowns already


def watch_predictions(scheduler: SchedulerMixin, on_predicted: Callable[[Tensor], None]):
    """Call `on_predicted` with the predicted x_0 after each step of a scheduler.

    The scheduler must belong to one sampling: it is watched to its end.
    on_predicted: takes latents [n, c, h, w] on the device of the sampling
    """
    step = scheduler.step

    # wraps: pipelines read from the signature which options a scheduler takes
    @wraps(step)
    def watched_step(*arguments, **options):
        output = step(*arguments, **options)
        on_predicted(_predicted(scheduler, output, *arguments))
        return output

    scheduler.step = watched_step


def _predicted(scheduler: SchedulerMixin, output: tuple, prediction, t, x_t, *_) -> Tensor:
    """Return the predicted x_0 of a step. output: of the step; the others are its arguments."""
    if len(output) > 1:
        return output[1]
    # multistep schedulers return the next latents alone, and keep x_0 for their next step
    if hasattr(scheduler, "model_outputs"):
        return scheduler.model_outputs[-1]
    # a flow's v leads to x_0 on a straight path, and its timesteps are noise levels
    return x_t - t / scheduler.config.num_train_timesteps * prediction


class LatentColours:
    """A linear map from latents to colours for each VAE, fitted to pictures that it decoded.

    A VAE's decoder costs as much as several denoiser evaluations, this product next to nothing. It
    needs no numbers for each base, because a first drawing gives latents and pictures.
    Source of the idea: K. Turner, "Decoding latents to RGB without upscaling", Hugging Face forum.
    """

    def __init__(self):
        self._maps = {}

    def fit(self, model: Path | None, latents: Tensor, images: np.ndarray):
        """Fit the map of a model's VAE by least squares.

        model: as in `SamplingSettings`; None for the base
        latents: fp32 on the CPU [n, c, h, w]
        images: uint8 [n, H, W, 3], decoded from them
        """
        latents = latents[:MAX_FITTED]
        pixels = to_tensor(images[:MAX_FITTED])
        small = adaptive_avg_pool2d(pixels, latents.shape[-2:])
        # gelsd: the usual driver fails on latents of a plain picture, which are not independent
        solution = torch.linalg.lstsq(_rows(latents), _colours(small), driver="gelsd").solution
        self._maps[model] = solution

    def picture(self, model: Path | None, latents: Tensor) -> np.ndarray | None:
        """Return one latent [c, h, w] as a picture uint8 [h, w, 3], None before the first fit."""
        if model not in self._maps:
            return None
        latents = latents[None].float().cpu()
        colours = _rows(latents) @ self._maps[model]
        height, width = latents.shape[-2:]
        return to_uint8(colours.T.reshape(1, 3, height, width))[0]


def _rows(latents):
    """Return a row for each place, its channels and a 1 for the constant: [n h w, c + 1]."""
    places = _colours(latents)
    return torch.cat([places, torch.ones(len(places), 1)], dim=1)


def _colours(pixels):
    """Return [n, c, h, w] as a row for each place, [n h w, c]."""
    return pixels.permute(0, 2, 3, 1).flatten(0, 2)
