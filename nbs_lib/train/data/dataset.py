"""Batches from a cache, pure functions of seed and step: a resumed training sees the same ones."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow.compute
import torch
from torch import Tensor

from ...cache.format import N_TIMESTEPS
from ...config import Train
from ...flow import logit_normal_timesteps
from .batch import Batch, Draws
from .cache_reader import HELD_OUT_SHARE, CacheReader, integers
from .rollout import draw_trajectories, held_out_trajectories, rollout_fields


class Examples(CacheReader):
    """The examples of a cache, divided by their use, as batches.

    training: indices of the examples that are trained on.
    prior: indices of those that preserve what the base knows.
    held_out: indices of those that are never trained on, nor are their mirrored copies.
    """

    def __init__(self, folder: Path, config: Train):
        """Open the cache in a folder, one that `check_cache` has passed."""
        super().__init__(folder, config)
        # the student's own sampling takes the place of the data
        self.samples = config.objective == "distribution"
        prior = integers(self.table["prior"]).bool()
        flipped = integers(self.table["flipped"]).bool()
        originals = (~prior & ~flipped).nonzero().flatten()
        n_held_out = 0
        # if nobody validates, all examples are trained on
        if config.validation_steps:
            n_held_out = min(config.validation_examples, len(originals) // HELD_OUT_SHARE)
        self.held_out = originals[len(originals) - n_held_out :]
        self.prior = prior.nonzero().flatten()
        trained = ~prior
        if n_held_out:
            # a mirrored copy has the id of its original
            held_out_ids = self.id_column(self.held_out)
            trained &= ~integers(pyarrow.compute.is_in(self.table["id"], held_out_ids)).bool()
        self.training = trained.nonzero().flatten()
        self._training_by_shape = self._by_shape(self.training)
        self._prior_by_shape = self._by_shape(self.prior)

    def _by_shape(self, example: Tensor) -> list[Tensor]:
        return [example[self.shape[example] == index] for index in range(len(self.shapes))]

    def batch(self, step: int, share: int, n_shares: int) -> Batch:
        """Return one share, `batch_size` examples, of a step's batch_size × n_shares examples."""
        size = self.config.batch_size
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + step)
        # the whole step, so that it does not depend on how many passes or processes share it
        draws = self._draw(generator, size * n_shares)
        return self._batch(draws.rows(slice(share * size, (share + 1) * size)))

    def held_out_batches(self) -> Iterator[Batch]:
        """Yield the held-out examples, each time with the same noise and timesteps."""
        n = len(self.held_out)
        generator = torch.Generator().manual_seed(0)
        # the timesteps are spread evenly over all examples
        position = (torch.arange(n) + 0.5) / max(1, n)
        t = (position * N_TIMESTEPS).long()
        # cached draws in turn, no caption dropped, w in the middle of its range
        draw = position if self.answers else torch.ones(n)
        chance = torch.stack([draw, torch.full((n,), 0.5)], 1)
        for index, shape in enumerate(self.shapes):
            rows = (self.shape[self.held_out] == index).nonzero().flatten()
            noise = torch.randn(len(rows), *shape, generator=generator)
            draws = Draws(self.held_out[rows], t[rows], noise, chance[rows])
            if self.samples:
                draws = held_out_trajectories(draws, self.config, generator)
            for start in range(0, len(rows), self.config.batch_size):
                yield self._batch(draws.rows(slice(start, start + self.config.batch_size)))

    def _draw(self, generator: torch.Generator, n: int) -> Draws:
        """Draw n examples of one shape; finetune takes every other one from the prior of it."""
        index = 0
        # each shape as often as it has examples
        if len(self.shapes) > 1:
            index = int(self.shape[_choose(self.training, 1, generator)])
        example = _choose(self._training_by_shape[index], n, generator)
        t = torch.randint(N_TIMESTEPS, (n,), generator=generator)
        noise = torch.randn(n, *self.shapes[index], generator=generator)
        chance = torch.rand(n, 2, generator=generator)
        if self.config.objective == "finetune":
            prior = self._prior_by_shape[index]
            if len(prior):
                # from the first or the second on, so that steps of one example reach the prior too
                start = int(torch.randint(2, (1,), generator=generator))
                example[start::2] = _choose(prior, len(example[start::2]), generator)
            offset = torch.randn(*noise.shape[:2], 1, 1, generator=generator)
            noise = noise + self.config.noise_offset * offset
            if self.config.timestep_sampling == "logit_normal":
                t = logit_normal_timesteps(torch.randn(n, generator=generator), N_TIMESTEPS)
        draws = Draws(example, t, noise, chance)
        return draw_trajectories(draws, self.config, generator) if self.samples else draws

    def _batch(self, draws: Draws) -> Batch:
        """Return the batch of these draws."""
        # all draws are made by now: the fields below depend on nothing else
        config = self.config
        n = len(draws.example)
        noised = {"t": draws.t, "noise": draws.noise}
        if self.answers:
            noised = self.cached_answers(draws.example, draws.chance[:, 0])
        if self.samples:
            noised = rollout_fields(draws, config)
        weight = torch.ones(n)
        dropped = torch.zeros(n, dtype=torch.bool)
        if config.objective == "finetune":
            dropped = draws.chance[:, 0] < config.caption_dropout
            weight[torch.isin(draws.example, self.prior)] = config.prior_loss_weight
        w_range = max(0.0, config.guidance_scale_max - config.guidance_scale)
        context, pooled = self.texts(draws.example, dropped)
        uncond, uncond_pooled = self.unconditional(n)
        return Batch(
            latents=self.clean_latents(draws.example),
            context=context,
            uncond=uncond,
            w=config.guidance_scale + draws.chance[:, 1] * w_range,
            weight=weight,
            example=draws.example,
            pooled=pooled,
            uncond_pooled=uncond_pooled,
            **noised,
        )


def _choose(example: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Draw n of these examples, with replacement."""
    return example[torch.randint(len(example), (n,), generator=generator)]
