"""Batches whose rows are steps of the student's own sampling, which needs no data but prompts.

Source: trajectory distribution matching, arXiv 2503.06674, sec. 4.
"""

import torch

from ...cache.format import N_TIMESTEPS
from ...config import Train
from ...diffusion import few_step_timesteps
from .batch import Draws, Rollout


def draw_trajectories(draws: Draws, config: Train, generator: torch.Generator) -> Draws:
    """Return draws whose rows are successive steps of trajectories.

    A trajectory of k steps thus gives k rows, for k - 1 passes without gradients.
    """
    choices = config.few_steps
    steps = choices[int(torch.randint(len(choices), (1,), generator=generator))]
    # a random first step, so that all are learned whatever the batch size is
    start = int(torch.randint(steps, (1,), generator=generator))
    row = start + torch.arange(len(draws.example))
    trajectory = row // steps
    return draws._replace(
        example=draws.example[trajectory],
        noise=draws.noise[trajectory],
        chance=draws.chance[trajectory],
        trajectory=trajectory,
        position=row % steps,
        renoise=torch.randn(draws.noise.shape, generator=generator),
        steps=steps,
    )


def held_out_trajectories(draws: Draws, config: Train, generator: torch.Generator) -> Draws:
    """Return draws with a trajectory for each row, of which it is one step, each step in turn."""
    row = torch.arange(len(draws.example))
    steps = config.few_steps[0]
    renoise = torch.randn(draws.noise.shape, generator=generator)
    return draws._replace(trajectory=row, position=row % steps, renoise=renoise, steps=steps)


def rollout_fields(draws: Draws, config: Train) -> dict:
    """Return the fields of a batch that come from the student's own sampling: t, noise, rollout."""
    # a flow's single step is at another one, but what follows depends on later steps alone
    times = few_step_timesteps(draws.steps, N_TIMESTEPS)
    # after the last step only the data's own level is left
    lowest = torch.cat([times[1:], torch.zeros(1, dtype=torch.int64)])[draws.position]
    highest = torch.full_like(lowest, N_TIMESTEPS - 1)
    if config.matching_levels == "own":
        # the first step begins at pure noise, whatever timestep it is given
        highest = torch.cat([highest.new_tensor([N_TIMESTEPS - 1]), times[1:]])[draws.position]
    # the drawn timesteps, spread over these levels alone
    t = lowest + draws.t * (highest - lowest + 1) // N_TIMESTEPS
    _, trajectory = draws.trajectory.unique_consecutive(return_inverse=True)
    first = torch.searchsorted(trajectory, torch.arange(int(trajectory[-1]) + 1))
    rollout = Rollout(draws.steps, first, trajectory, draws.position, draws.renoise)
    return {"t": t, "noise": draws.noise, "rollout": rollout}
