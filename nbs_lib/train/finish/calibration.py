"""The dial of a trained guidance adapter, measured on held-out examples.

At one state, guidance moves the conditional prediction along the direction cond − uncond, and an
adapter at scale λ along about the same one. How far, on the mean of states of guided samplings, is
the guidance scale that λ stands for: w = 1 + ⟨change, direction⟩ / ⟨direction, direction⟩.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from ...config import Train
from ...models import TextEmbeddings
from ...models.lora.dial import Points
from ...models.lora.layers import scale_lora
from ..data.batch import Batch
from ..sampling import Passes, sample
from ..setup import TrainingState
from ..zero import partitioned

# λ that are tried. A larger one changes the prediction further, but not the pictures: they follow
# the projection up to λ = 1
SCALES = (0.25, 0.5, 0.75, 1.0)
MOST_EXAMPLES = 16  # that are sampled; a large base takes a minute for them on a GPU
STEPS = 25  # of a guided sampling
EVERY = 4  # of these steps one is measured
# round guidance scales, whose λ a card says
ROUND_SCALES = (1.25, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 7, 7.5, 8, 9, 10, 12, 15, 20)


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
    sums = sum(_along_guidance(training.student, batch) for batch in _states(config, training))
    *changes, guidance = sums.tolist()
    return points_of([1 + change / guidance for change in changes]) if guidance else []


def _states(config: Train, training: TrainingState) -> Iterator[Batch]:
    """Yield held-out captions with states of their guided samplings.

    Not with noised examples: an adapter changes these less than the states that it will meet.
    """
    student = training.student
    n_left = MOST_EXAMPLES
    generator = torch.Generator().manual_seed(0)
    for batch in training.examples.held_out_batches():
        batch = _first_rows(batch, n_left).to(student.schedule.device)
        n_left -= len(batch.t)
        noise = torch.randn(batch.noise.shape, generator=generator).to(batch.noise.device)
        for x_t, t in _guided_states(config, training, batch, noise)[::EVERY]:
            # cached predictions are of other states
            yield replace(batch, answers=None, x_t=x_t, t=t)
        if not n_left:
            return


def _first_rows(batch: Batch, count: int) -> Batch:
    return batch.map(lambda tensor: tensor[:count])


def _guided_states(
    config: Train, training: TrainingState, batch: Batch, noise: Tensor
) -> list[tuple[Tensor, Tensor]]:
    """Return x_t [n, c, h, w] and t [n] at each step of the guided sampling of a batch's texts."""
    states = []

    def predict(x_t, t, context, pooled=None):
        states.append((x_t, t))
        return training.student.base_prediction(x_t, t, context, pooled)

    scheduler = training.base.scheduler()
    text = TextEmbeddings(batch.context, batch.pooled)
    uncond = TextEmbeddings(batch.uncond, batch.uncond_pooled)
    passes = Passes(predict, scheduler, STEPS, guided=True)
    sample(passes, noise, text, uncond, config.guidance_scale)
    # each step makes two passes at its state
    return states[::2]


def _along_guidance(student, batch: Batch) -> Tensor:
    """Return ⟨change, direction⟩ for each of SCALES, then ⟨direction, direction⟩, [n + 1] fp64.

    They are of eps, of a flow of v, weighted over noise levels as an error of x_0 counts.
    """
    x_t = student.noisy_latents(batch)
    uncond, cond = (
        student.schedule.comparable(answer, x_t, batch.t).double()
        for answer in student.teacher_pair(x_t, batch)
    )
    direction = cond - uncond
    weighted = student.schedule.distillation_weight(batch.t, "snr_plus_one") * direction
    products = []
    for scale in SCALES:
        with scale_lora(student.lora_layers, scale):
            prediction = student(x_t, batch.t, batch.context, batch.pooled)
        change = student.schedule.comparable(prediction, x_t, batch.t).double() - cond
        products.append((change * weighted).sum())
    return torch.stack([*products, (direction * weighted).sum()]).cpu()


def points_of(measured: list[float]) -> Points:
    """Return the dial of a measurement, as far as w rises with λ; its last pair is measured.

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
    highest = round(w[-1], 2)
    # an adapter that has learned nothing has no dial
    if highest <= 1:
        return []
    targets = [target for target in ROUND_SCALES if target < highest]
    points = [[float(target), round(float(np.interp(target, w, scales)), 3)] for target in targets]
    return [*points, [highest, scales[-1]]]
