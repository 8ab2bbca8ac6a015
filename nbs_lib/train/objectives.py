"""The objectives that can be learned, each a small pure function behind one interface.

The loop knows none of them by name.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..config import Train
from ..diffusion import (
    add_noise,
    boundary_scalings,
    matching_gradient,
    min_snr_weight,
    pseudo_huber,
)
from .data.batch import Batch
from .student import Student

# Timesteps that consistency is learned between: LCMScheduler's original_inference_steps.
SOLVER_STEPS = 50


@dataclass(frozen=True)
class Objective:
    """A loss, and how the model that it trains is sampled.

    loss: takes the engine, which wraps the student and whose pass carries gradients, the student,
        a batch and the parameters; returns the loss of each example, [n] fp32.
    guided: True if it is sampled with the guidance scale w, False for one pass a step.
    scheduler: a class of diffusers.
    timestep_spacing: of the scheduler; "" for the base's own.
    steps: of sampling; None for the base's own, or for those of the parameters.
    fake_score: True if a second adapter learns the score of what the first one generates.
    fixed_target: True if the target of its loss does not move with the student. Only then does a
        lower held-out loss mean a better student.
    """

    loss: Callable[[Callable, Student, Batch, Train], Tensor]
    guided: bool
    scheduler: str = "DDIMScheduler"
    timestep_spacing: str = ""
    steps: int | None = None
    fake_score: bool = False
    fixed_target: bool = False

    def sampling_steps(self, config: Train) -> int | None:
        """Return the steps that its model is sampled with; None for the base's own."""
        return config.few_steps[0] if self.fake_score else self.steps


def guidance(engine: Callable, student: Student, batch: Batch, config: Train) -> Tensor:
    """Return the squared error between the student's one pass and the guided teacher.

    It is of eps, of a flow of v, weighted over noise levels.
    Source: guidance distillation, arXiv 2210.03142, sec. 3.1, without the student's input w; on
    states of the teacher's own trajectories, arXiv 2503.07274.
    """
    x_t = student.noisy_latents(batch)
    target = student.teacher(x_t, batch)
    prediction = engine(x_t, batch.t, batch.context, batch.pooled)
    schedule = student.schedule
    error = schedule.comparable(prediction, x_t, batch.t)
    error = error - schedule.comparable(target, x_t, batch.t)
    weight = schedule.distillation_weight(batch.t, config.loss_weighting).flatten()
    return weight * _mean_square(error)


def finetune(engine: Callable, student: Student, batch: Batch, config: Train) -> Tensor:
    """Return the denoising loss in the prediction's own space, with min-SNR weights.

    Offset noise and dropped captions are the batch's.
    Source: arXiv 2006.11239, eq. 14; arXiv 2303.09556; of a flow, arXiv 2403.03206, eq. 13 and 14.
    """
    alpha, sigma = student.levels(batch.t)
    x_t = add_noise(batch.latents, batch.noise, alpha, sigma)
    prediction = engine(x_t, batch.t, batch.context, batch.pooled)
    schedule = student.schedule
    weight = min_snr_weight(alpha, sigma, config.snr_gamma, schedule.prediction_type).flatten()
    # the weights are for an error in the prediction's own space
    target = schedule.target(batch.latents, batch.noise, batch.t)
    return weight * _mean_square(prediction - target)


def consistency(engine: Callable, student: Student, batch: Batch, config: Train) -> Tensor:
    """Return the distance between the student's guesses of x_0 at neighbouring solver timesteps.

    The second timestep is one skip interval nearer to the data, where the guided teacher's DDIM
    step leads.
    Source: LCM-LoRA, arXiv 2311.05556; arXiv 2310.04378, algorithm 1.
    """
    # the last timestep of each interval, where LCMScheduler samples
    skip = len(student.schedule) // SOLVER_STEPS
    start = batch.t // skip * skip + skip - 1
    end = (start - skip).clamp(min=0)
    batch = replace(batch, t=start)
    x_start = student.noisy_latents(batch)
    prediction = engine(x_start, start, batch.context, batch.pooled)
    guess = _consistent(student, prediction, x_start, start)
    # the target is the student itself, held still
    with torch.no_grad():
        answer = student.teacher(x_start, batch)
        x_0 = student.x_0(answer, x_start, start)
        eps = student.eps(answer, x_start, start)
        x_end = add_noise(x_0, eps, *student.levels(end))
        target = _consistent(student, student(x_end, end, batch.context, batch.pooled), x_end, end)
    return pseudo_huber(guess, target, config.huber_c).flatten(1).mean(1)


def distribution(engine: Callable, student: Student, batch: Batch, config: Train) -> Tensor:
    """Return the loss of a generator of few steps, plus that of the score of what it generates.

    One adapter generates: at a step of its own sampling it guesses x_0. The guess is noised, and
    moved by the difference of two scores there: the guided teacher's, and that of the generator's
    own guesses. A second adapter learns the latter by denoising the guesses, and is thrown away.
    Source: trajectory distribution matching, arXiv 2503.06674, sec. 4.1 to 4.2.
    """
    x_start, start = student.states(batch)
    prediction = engine(x_start, start, batch.context, batch.pooled)
    x_0 = student.x_0(prediction, x_start, start)
    guess = x_0.detach()
    t = batch.t
    x_t = add_noise(guess, batch.rollout.noise, *student.levels(t))
    real = student.x_0(student.teacher(x_t, batch), x_t, t)
    # one pass both learns the score and gives it to the generator
    context = student.steps_aware(batch.context, batch.rollout.steps)
    with student.fake_score():
        fake_prediction = engine(x_t, t, context, batch.pooled)
    fake = student.x_0(fake_prediction.detach(), x_t, t)
    # the gradient of half a squared distance is the distance itself
    target = guess - matching_gradient(guess, real, fake)
    denoising = _mean_square(
        student.schedule.comparable(fake_prediction, x_t, t)
        - student.schedule.comparable_target(guess, batch.rollout.noise)
    )
    return _mean_square(x_0 - target) / 2 + denoising


def _consistent(student: Student, prediction: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    # a flow's x_t − sigma v is x_t itself without noise
    if student.schedule.is_flow:
        return student.x_0(prediction, x_t, t)
    c_skip, c_out = boundary_scalings(t)
    return c_skip * x_t + c_out * student.x_0(prediction, x_t, t)


def _mean_square(difference: Tensor) -> Tensor:
    return difference.square().flatten(1).mean(1)


OBJECTIVES = {
    "guidance": Objective(guidance, guided=False, fixed_target=True),
    "finetune": Objective(finetune, guided=True, fixed_target=True),
    "consistency": Objective(consistency, guided=False, scheduler="LCMScheduler", steps=4),
    "distribution": Objective(
        distribution, guided=False, timestep_spacing="trailing", fake_score=True
    ),
}
