"""What can be learned: a small pure function for each objective, behind one interface.

An objective takes the wrapped student (whose forward pass carries gradients), the student itself, a batch and the
parameters, and gives each example's loss, [n] fp32. The loop knows none of them by name.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..config import Train
from ..diffusion import add_noise, boundary_scalings, get_velocity, min_snr_weight, pseudo_huber
from .batch import Batch
from .student import Student


@dataclass(frozen=True)
class Objective:
    """loss: as described above. The rest is how its model is sampled: with the guidance scale w or in one pass a step, by
    which of diffusers' schedulers, in how many steps where these are not the base's."""

    loss: Callable[[Callable, Student, Batch, Train], torch.Tensor]
    guided: bool
    scheduler: str = "DDIMScheduler"
    steps: int | None = None


SOLVER_STEPS = 50
"""Timesteps that consistency is learned between: LCMScheduler's original_inference_steps."""


def guidance(engine: Callable, student: Student, batch: Batch, config: Train) -> torch.Tensor:
    """Squared error between the student's one pass and the guided teacher, both stated in eps.

    Source: guidance distillation, arXiv 2210.03142, sec. 3.1, without the student's input w; on states of the teacher's
    own trajectories, arXiv 2503.07274.
    """
    x_t = student.states(batch)
    target = student.teacher(x_t, batch)
    prediction = engine(x_t, batch.t, batch.context, batch.pooled)
    return _mean(student.eps(prediction, x_t, batch.t) - student.eps(target, x_t, batch.t))


def finetune(engine: Callable, student: Student, batch: Batch, config: Train) -> torch.Tensor:
    """The denoising loss in the prediction's own space, with min-SNR weights; offset noise and dropped captions are the
    batch's. Source: arXiv 2006.11239, eq. 14; arXiv 2303.09556."""
    alpha, sigma = student.levels(batch.t)
    prediction = engine(
        add_noise(batch.latents, batch.noise, alpha, sigma), batch.t, batch.context, batch.pooled
    )
    targets = {
        "epsilon": batch.noise,
        "v_prediction": get_velocity(batch.latents, batch.noise, alpha, sigma),
        "sample": batch.latents,
    }
    weight = min_snr_weight(alpha, sigma, config.snr_gamma, student.prediction_type).flatten()
    return weight * _mean(prediction - targets[student.prediction_type])


def consistency(engine: Callable, student: Student, batch: Batch, config: Train) -> torch.Tensor:
    """The student's guess of x_0 at one timestep of the solver against its own guess one skip interval nearer to the data,
    where the guided teacher's DDIM step leads. Source: LCM-LoRA, arXiv 2311.05556; arXiv 2310.04378, algorithm 1."""
    skip = len(student.alphas_cumprod) // SOLVER_STEPS
    start = batch.t // skip * skip + skip - 1
    end = (start - skip).clamp(min=0)
    at_start = batch.at(start)
    x_start = student.states(at_start)
    guess = _consistent(
        student, engine(x_start, start, batch.context, batch.pooled), x_start, start
    )
    with torch.no_grad():
        answer = student.teacher(x_start, at_start)
        step = student.x_0(answer, x_start, start), student.eps(answer, x_start, start)
        x_end = add_noise(*step, *student.levels(end))
        target = _consistent(student, student(x_end, end, batch.context, batch.pooled), x_end, end)
    return pseudo_huber(guess, target, config.huber_c).flatten(1).mean(1)


def _consistent(
    student: Student, prediction: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor
) -> torch.Tensor:
    c_skip, c_out = boundary_scalings(t)
    return c_skip * x_t + c_out * student.x_0(prediction, x_t, t)


def _mean(difference: torch.Tensor) -> torch.Tensor:
    return difference.square().flatten(1).mean(1)


OBJECTIVES = {
    "guidance": Objective(guidance, guided=False),
    "finetune": Objective(finetune, guided=True),
    "consistency": Objective(consistency, guided=False, scheduler="LCMScheduler", steps=4),
}
