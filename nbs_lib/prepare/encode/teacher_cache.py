"""The teacher's answers, asked once and kept: training then runs no teacher. A file for each shard of examples:

    t       int64 [n, draws]
    uncond  fp16  [n, draws, c, h, w], the base's prediction with the negative prompt
    cond    fp16  [n, draws, c, h, w], with the caption; any guidance scale is made from the two
    x_t     fp16  [n, draws, c, h, w], the states of trajectories; those of data are the example's latents with
                  `noise_of(seed, key, draw)`, which is not kept

Timesteps and noise depend on an example's key and the seed alone, so an answer holds wherever the example stands.
What is done here decides what a cache holds, so this module's source is part of every cache's key.
"""

from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import torch

from ...cache.shards import map_shard
from ...config import Prepare
from ...diffusion import (
    add_noise,
    alpha_sigma,
    classifier_free_guidance,
    noise_like,
    to_eps,
    to_x_0,
)
from ...models import StableDiffusion
from .encoder import keep_picture

Tensors = dict[str, torch.Tensor]
Rows = list[tuple[Path, int]]
"""Of each example the file of its caption's embeddings, and the row in it."""
TIMESTEPS = 1000


class TeacherCache:
    """The base's UNet, asked for both sides of guidance in one batch. unconditional: the file of these texts."""

    def __init__(
        self, base: StableDiffusion, device: torch.device, unconditional: Path, config: Prepare
    ):
        self.base, self.device, self.config = base, device, config
        self.away = {name: part.to(device) for name, part in map_shard(unconditional).items()}
        self.unet = base.unet().to(device, memory_format=torch.channels_last)
        self.alphas_cumprod = base.scheduler().alphas_cumprod.to(device)

    @torch.no_grad()
    def write(
        self,
        path: Path,
        keys: Sequence[str],
        texts: Rows,
        latents: Path | None,
        shape: tuple[int, ...],
    ):
        """Ask about the examples of a shard. latents: their file, for states of data; shape: [c, h, w] of a latent."""
        of = {"data": self.about_data, "trajectories": self.about_trajectories}[
            self.config.teacher_cache
        ]
        whole = map_shard(latents)["latents"] if latents else torch.zeros(len(keys), *shape)
        size, parts = max(1, self.config.batch_size // 2), []  # each example is two rows
        for start in range(0, len(keys), size):
            rows = slice(start, start + size)
            text = {name: torch.stack([map_shard(file)[name][row] for file, row in texts[rows]]).to(self.device)
                    for name in ("embeddings", "pooled") if name in map_shard(texts[0][0])}  # fmt: skip
            parts.append(of(whole[rows], keys[rows], text))
        keep_picture(
            path,
            {name: torch.cat([part[name] for part in parts]).contiguous() for name in parts[0]},
        )

    def ask(
        self, x_t: torch.Tensor, t: torch.Tensor, text: Tensors
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """uncond and cond [n, c, h, w] for states x_t."""
        rows = (x_t.repeat(2, 1, 1, 1), t.repeat(2))
        context = torch.cat(
            [self.away["negative"].expand_as(text["embeddings"]), text["embeddings"]]
        )
        pooled = None
        if "pooled" in text:
            pooled = torch.cat(
                [self.away["negative_pooled"].expand_as(text["pooled"]), text["pooled"]]
            )
        return self.unet(
            *rows,
            context,
            added_cond_kwargs=self.base.added_cond_kwargs(pooled, x_t),
            return_dict=False,
        )[0].chunk(2)

    def step(
        self, prediction: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor, end: torch.Tensor
    ) -> torch.Tensor:
        """DDIM's step from timesteps t to timesteps `end`."""
        there = (x_t, *alpha_sigma(self.alphas_cumprod, t), self.base.prediction_type)
        return add_noise(
            to_x_0(prediction, *there),
            to_eps(prediction, *there),
            *alpha_sigma(self.alphas_cumprod, end),
        )

    def about_data(self, latents: torch.Tensor, keys: Sequence[str], text: Tensors) -> Tensors:
        """Answers about noised latents, the timesteps spread evenly over the draws and at random within each share."""
        t, kept = timesteps(keys, self.config), []
        for draw in range(self.config.teacher_samples):
            noise = self._noise(keys, draw, tuple(latents.shape[1:]))
            now = t[:, draw].to(self.device)
            x_t = add_noise(latents.to(self.device), noise, *alpha_sigma(self.alphas_cumprod, now))
            kept.append(self.ask(x_t, now, text))
        uncond, cond = (torch.stack([half(answer[side]) for answer in kept], 1) for side in (0, 1))
        return {"t": t, "uncond": uncond, "cond": cond}

    def about_trajectories(
        self, latents: torch.Tensor, keys: Sequence[str], text: Tensors
    ) -> Tensors:
        """Answers along guided sampling from noise alone, in as many DDIM steps as there are draws; the latents give the
        shape.

        The first step, from pure noise at the last timestep, is not kept; it leads to a timestep of the first share, each
        example's own, so together they meet all timesteps.
        Source: arXiv 2503.07274, sec. 3.
        """
        x_t = self._noise(keys, 0, tuple(latents.shape[1:]))
        t = timesteps(keys, self.config, together=True)
        times = torch.cat([torch.full((len(t), 1), TIMESTEPS - 1), t], 1).to(self.device)
        kept = []
        for now, end in zip(times.unbind(1), times[:, 1:].unbind(1), strict=False):
            uncond, cond = self.ask(x_t, now, text)
            kept.append((uncond, cond, x_t))
            x_t = self.step(
                classifier_free_guidance(uncond, cond, self.config.teacher_guidance_scale),
                x_t,
                now,
                end,
            )
        kept.append((*self.ask(x_t, times[:, -1], text), x_t))
        kept = kept[1:]
        uncond, cond, states = (
            torch.stack([half(answer[i]) for answer in kept], 1) for i in range(3)
        )
        return {"t": t, "uncond": uncond, "cond": cond, "x_t": states}

    def _noise(self, keys: Sequence[str], draw: int, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.stack([noise_like(self.config.seed, key, draw, shape) for key in keys]).to(
            self.device
        )


def timesteps(keys: Sequence[str], config: Prepare, together: bool = False) -> torch.Tensor:
    """Timesteps [n, draws], falling, one in each of `draws` equal shares; `together`: at the same place of every share."""
    rows = []
    for key in keys:
        digest = blake2b(f"timesteps {config.seed} {key}".encode(), digest_size=7).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest))
        place = torch.rand(1 if together else config.teacher_samples, generator=generator)
        share = torch.arange(config.teacher_samples, 0, -1) - 1 + place
        rows.append((share * TIMESTEPS / config.teacher_samples).long().clamp(0, TIMESTEPS - 1))
    return torch.stack(rows)


def half(answer: torch.Tensor) -> torch.Tensor:
    return answer.half().cpu()
