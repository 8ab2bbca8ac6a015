"""The teacher's answers, asked once and kept: training then runs no teacher.

    answers.safetensors   t       int64 [n, draws]
                          uncond  fp16  [n, draws, c, h, w], the base's prediction with the negative prompt
                          cond    fp16  [n, draws, c, h, w], with the caption; any guidance scale is made from the two
                          x_t     fp16  [n, draws, c, h, w], the states of trajectories; those of data are the example's
                                        latents with `noise_of(seed, example, draw)`, which is not kept

What is done here decides what a cache holds, so this module's source is part of every cache's key.
"""

from functools import partial

import torch

from ..config import Prepare
from ..diffusion import alpha_sigma, guided, noise_of, noised, to_eps, to_x_0
from ..models import Base
from .encode import batches, device_of

Tensors = dict[str, torch.Tensor]
FILE = "answers.safetensors"
TIMESTEPS = 1000


class Teacher:
    """The base's UNet, asked for both sides of guidance in one batch."""

    def __init__(self, base: Base, text: Tensors, resolution: int):
        self.device, self.prediction_type = device_of(), base.prediction_type
        self.added = partial(base.added, resolution=resolution)
        self.unet = base.unet().to(self.device, memory_format=torch.channels_last)
        self.alphas_cumprod = base.scheduler().alphas_cumprod.to(self.device)
        self.text = {name: part.to(self.device) for name, part in text.items()}

    def __call__(self, x_t: torch.Tensor, t: torch.Tensor, example: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """uncond and cond [n, c, h, w] for states x_t of the examples at these places."""
        caption, rows = self.text["index"][example.to(self.device)], (x_t.repeat(2, 1, 1, 1), t.repeat(2))
        context = self._both("embeddings", "negative", caption)
        pooled = self._both("pooled", "negative_pooled", caption) if "pooled" in self.text else None
        return self.unet(*rows, context, added_cond_kwargs=self.added(pooled), return_dict=False)[0].chunk(2)

    def _both(self, name: str, negative: str, caption: torch.Tensor) -> torch.Tensor:
        """The negative prompt's rows, and below them the captions'."""
        cond = self.text[name][caption]
        return torch.cat([self.text[negative].expand_as(cond), cond])

    def step(self, prediction: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
        """DDIM's step from timesteps t to timesteps `end`."""
        there = (x_t, *alpha_sigma(self.alphas_cumprod, t), self.prediction_type)
        return noised(to_x_0(prediction, *there), to_eps(prediction, *there), *alpha_sigma(self.alphas_cumprod, end))


@torch.no_grad()
def ask(base: Base, latents: torch.Tensor, text: Tensors, config: Prepare) -> Tensors:
    """The tensors of answers.safetensors for scaled latents [n, c, h, w] and the captions' embeddings."""
    teacher = Teacher(base, text, config.resolution)
    of = {"data": about_data, "trajectories": about_trajectories}[config.answers]
    half = max(1, config.batch_size // 2)  # each example is two rows
    asked = map(torch.tensor, batches(range(len(latents)), half, "answers"))
    parts = [of(teacher, latents[rows], rows, config) for rows in asked]
    return {name: torch.cat([part[name] for part in parts]).contiguous() for name in parts[0]}


def about_data(teacher: Teacher, latents: torch.Tensor, example: torch.Tensor, config: Prepare) -> Tensors:
    """Answers about noised latents, the timesteps spread evenly over the draws and at random within each share."""
    shape = tuple(latents.shape[1:])
    t = timesteps(example, config)
    kept = []
    for draw in range(config.draws):
        noise = torch.stack([noise_of(config.seed, i, draw, shape) for i in example.tolist()]).to(teacher.device)
        now = t[:, draw].to(teacher.device)
        x_t = noised(latents.to(teacher.device), noise, *alpha_sigma(teacher.alphas_cumprod, now))
        kept.append(teacher(x_t, now, example))
    uncond, cond = (torch.stack([half(answer[side]) for answer in kept], 1) for side in (0, 1))
    return {"t": t, "uncond": uncond, "cond": cond}


def about_trajectories(teacher: Teacher, latents: torch.Tensor, example: torch.Tensor, config: Prepare) -> Tensors:
    """Answers along guided sampling from noise alone, in as many DDIM steps as there are draws; the latents give the shape.

    The first step, from pure noise at the last timestep, is not kept; it leads to a timestep of the first share, each
    example's own, so together they meet all timesteps.
    Source: arXiv 2503.07274, sec. 3.
    """
    shape = tuple(latents.shape[1:])
    x_t = torch.stack([noise_of(config.seed, i, 0, shape) for i in example.tolist()]).to(teacher.device)
    t = timesteps(example, config, together=True)
    times = torch.cat([torch.full((len(t), 1), TIMESTEPS - 1), t], 1).to(teacher.device)
    kept = []
    for now, end in zip(times.unbind(1), times[:, 1:].unbind(1), strict=False):
        uncond, cond = teacher(x_t, now, example)
        kept.append((uncond, cond, x_t))
        x_t = teacher.step(guided(uncond, cond, config.answers_guidance), x_t, now, end)
    kept.append((*teacher(x_t, times[:, -1], example), x_t))
    kept = kept[1:]
    uncond, cond, states = (torch.stack([half(answer[i]) for answer in kept], 1) for i in range(3))
    return {"t": t, "uncond": uncond, "cond": cond, "x_t": states}


def timesteps(example: torch.Tensor, config: Prepare, together: bool = False) -> torch.Tensor:
    """Timesteps [n, draws], falling, one in each of `draws` equal shares; `together`: at the same place of every share."""
    rows = []
    for i in example.tolist():
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + i)
        place = torch.rand(1 if together else config.draws, generator=generator)
        share = torch.arange(config.draws, 0, -1) - 1 + place
        rows.append((share * TIMESTEPS / config.draws).long().clamp(0, TIMESTEPS - 1))
    return torch.stack(rows)


def half(answer: torch.Tensor) -> torch.Tensor:
    return answer.half().cpu()
