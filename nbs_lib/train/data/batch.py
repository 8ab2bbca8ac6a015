"""The tensors of one pass, and the random choices that decide them."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only


class Rollout(NamedTuple):
    """The sampling trajectories of a batch of n rows, each row a step of one of m trajectories.

    steps: of the sampling, whose timesteps are `NoiseSchedule.few_step_timesteps`.
    first: number of the first row of each trajectory [m].
    trajectory: of each row [n], 0 to m - 1.
    position: step of each row in its trajectory [n], 0 to steps - 1.
    noise: that the answer of each row is noised with [n, c, h, w].
    """

    steps: int
    first: Tensor
    trajectory: Tensor
    position: Tensor
    noise: Tensor


@dataclass(frozen=True)
class Batch:
    """The inputs of one pass, for n examples.

    latents, noise: [n, c, h, w].
    t: timesteps [n], in [0, 1000).
    context, uncond: texts [n, tokens, width]; of the captions, of which finetune drops some, and of
        the negative prompt.
    w: the teacher's guidance scale [n].
    weight: of each example's loss [n].
    example: index of each in the cache [n].
    answers: cached predictions of the teacher without and with the caption, each [n, c, h, w].
    x_t: the states that the answers are about [n, c, h, w], if these are not the noised latents.
    pooled, uncond_pooled: pooled texts [n, p]; None if the base's family has none.
    rollout: the student's own sampling, of which each row is a step; noise is then the noise that
        its trajectory starts from, and t the timestep that its answer is noised to.
    """

    latents: Tensor
    noise: Tensor
    t: Tensor
    context: Tensor
    uncond: Tensor
    w: Tensor
    weight: Tensor
    example: Tensor
    answers: tuple[Tensor, Tensor] | None = None
    x_t: Tensor | None = None
    pooled: Tensor | None = None
    uncond_pooled: Tensor | None = None
    rollout: Rollout | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> "Batch":
        """Return the batch with a function applied to each of its tensors."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **tree_map_only(Tensor, function, values))

    def to(self, device: torch.device, non_blocking: bool = False) -> "Batch":
        """Return the batch on a device, its answers in fp32.

        non_blocking: return before pinned tensors are copied; the device's stream waits for them.
        """
        moved = self.map(lambda tensor: tensor.to(device, non_blocking=non_blocking))
        if moved.answers:
            moved = replace(moved, answers=tuple(tensor.float() for tensor in moved.answers))
        return moved


class Draws(NamedTuple):
    """The random choices of a batch, for n examples of one shape.

    example: indices [n].
    t: timesteps [n].
    noise: [n, c, h, w].
    chance: two numbers in [0, 1) for each [n, 2]: of a cached draw or a dropped caption, and of w.
    trajectory, position, renoise: as in `Rollout`, for an objective that samples.
    steps: of these trajectories.
    """

    example: Tensor
    t: Tensor
    noise: Tensor
    chance: Tensor
    trajectory: Tensor | None = None
    position: Tensor | None = None
    renoise: Tensor | None = None
    steps: int = 0

    def rows(self, rows: slice) -> "Draws":
        """Return the draws of some rows."""
        return Draws(*tree_map_only(Tensor, lambda tensor: tensor[rows], tuple(self)))
