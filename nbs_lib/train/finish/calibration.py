"""The dial of a trained guidance adapter, measured on held-out examples.

At one state, guidance moves the conditional prediction along the direction cond − uncond, and an
adapter at scale λ along about the same one. How far, on the mean of states at all noise levels, is
the guidance scale that λ stands for: w = 1 + ⟨change, direction⟩ / ⟨direction, direction⟩.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from ...cache.format import N_TIMESTEPS
from ...config import Train
from ...diffusion import distillation_weight
from ...models.lora.dial import Points
from ...models.lora.layers import scale_lora
from ..data.batch import Batch
from ..data.dataset import Examples
from ..setup import TrainingState
from ..zero import partitioned

SCALES = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)  # λ that are tried
LEVELS = 8  # noise levels of each example
# guidance scales that people ask for
ASKED = (1.25, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 7, 7.5, 8, 9, 10, 12, 15, 20)


@torch.no_grad()
def measure_dial(config: Train, training: TrainingState, main: bool) -> Points:
    """Return pairs of w and λ, as far as the adapter gives them; none if nothing was held out.

    Every process must call this; the main one measures.
    """
    examples = training.examples
    if config.objective != "guidance" or config.method == "full" or not len(examples.held_out):
        return []
    # of partitioned weights, no process can make a pass alone
    if not (main or partitioned(training.parameters)):
        return []
    training.student.eval()
    device = training.student.alphas_cumprod.device
    sums = sum(_along_guidance(training.student, batch.to(device)) for batch in _states(examples))
    *along, whole = sums.tolist()
    return points_of([1 + value / whole for value in along]) if whole else []


def _states(examples: Examples) -> Iterator[Batch]:
    """Yield the held-out examples at several noise levels each."""
    for batch in examples.held_out_batches():
        # noised anew: kept answers are of other states
        batch = replace(batch, answers=None, x_t=None)
        for level in range(LEVELS):
            shift = level * N_TIMESTEPS // LEVELS
            yield replace(batch, t=(batch.t + shift) % N_TIMESTEPS)


def _along_guidance(student, batch: Batch) -> Tensor:
    """Return ⟨change, direction⟩ for each of SCALES, then ⟨direction, direction⟩, [n + 1] fp64.

    They are of eps, weighted over noise levels as an error of x_0 counts in the picture.
    """
    x_t = student.noisy_latents(batch)
    uncond, cond = (
        student.eps(answer, x_t, batch.t).double() for answer in student.teacher_pair(x_t, batch)
    )
    alpha, _ = student.levels(batch.t)
    direction = cond - uncond
    weighted = distillation_weight(alpha, "snr_plus_one") * direction
    products = []
    for scale in SCALES:
        with scale_lora(student.lora_layers, scale):
            prediction = student(x_t, batch.t, batch.context, batch.pooled)
        change = student.eps(prediction, x_t, batch.t).double() - cond
        products.append((change * weighted).sum())
    return torch.stack([*products, (direction * weighted).sum()]).cpu()


def points_of(measured: list[float]) -> Points:
    """Return the dial of a measurement, as far as w rises with λ.

    measured: the w of each of SCALES
    """
    w = [1.0, *measured]
    rising = 1
    for before, after in pairwise(w):
        if after <= before:
            break
        rising += 1
    scales = [0.0, *SCALES][:rising]
    w = w[:rising]
    return [
        [float(asked), round(float(np.interp(asked, w, scales)), 3)]
        for asked in ASKED
        if asked <= w[-1]
    ]
