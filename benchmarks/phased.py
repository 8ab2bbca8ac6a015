"""Phased consistency, an alternative to the objectives of few steps, measured beside them.

It is not part of the library, because distribution draws better after the same training time.
Source: phased consistency models, arXiv 2405.18407, sec. 3.1.
"""

from dataclasses import replace

import torch
from torch import Tensor

from nbs_lib.diffusion import add_noise, pseudo_huber
from nbs_lib.train.objectives import Objective

PHASES = 4
# a quarter of them is a phase, so the phases' edges are the sampler's own timesteps
SOLVER_STEPS = 40


def phased_consistency() -> Objective:
    """Return the objective."""
    return Objective(_loss, guided=False, timestep_spacing="trailing", steps=PHASES)


def _loss(engine, student, batch, config) -> Tensor:
    """Return the distance between guesses of the phase's last state, at neighbouring timesteps.

    The second timestep is one solver step nearer to the data, where the guided teacher's DDIM
    step leads; at the end of the phase the guess is the state itself.
    Source: arXiv 2405.18407, eq. 6 and 7, without the adversarial loss.
    """
    n_timesteps = len(student.schedule)
    skip, phase = n_timesteps // SOLVER_STEPS, n_timesteps // PHASES
    start = batch.t // skip * skip + skip - 1
    # of the last step and the last phase, the data's own level
    end = (start - skip).clamp(min=0)
    edge = (start // phase * phase - 1).clamp(min=0)
    batch = replace(batch, t=start)
    x_start = student.noisy_latents(batch)
    prediction = engine(x_start, start, batch.context, batch.pooled)
    guess = _ddim_step(student, prediction, x_start, start, edge)
    with torch.no_grad():
        x_end = _ddim_step(student, student.teacher(x_start, batch), x_start, start, end)
        prediction = student(x_end, end, batch.context, batch.pooled)
        target = _ddim_step(student, prediction, x_end, end, edge)
        target = torch.where((end == edge).view(-1, 1, 1, 1), x_end, target)
    return pseudo_huber(guess, target, config.huber_c).flatten(1).mean(1)


def _ddim_step(student, prediction: Tensor, x_t: Tensor, start: Tensor, end: Tensor) -> Tensor:
    x_0 = student.x_0(prediction, x_t, start)
    return add_noise(x_0, student.eps(prediction, x_t, start), *student.levels(end))
