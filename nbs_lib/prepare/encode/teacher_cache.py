"""The teacher's predictions, computed once and stored, so that training runs no teacher.

A file for each shard of examples holds

    t       int64 [n, draws]
    uncond  fp16  [n, draws, c, h, w], the base's prediction with the negative prompt
    cond    fp16  [n, draws, c, h, w], with the caption; any guidance scale is made from the two
    x_t     fp16  [n, draws, c, h, w], the states of trajectories; those of data are the example's
                  latents with `noise_like(seed, key, draw)`, which is not stored

Timesteps and noise depend on an example's key and the seed alone, so a prediction stays valid in
any order of the examples. A cache's content depends on this code, so this module's source is part
of every cache's key.
"""

from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import torch

from ...cache.format import N_TIMESTEPS
from ...cache.shards import map_shard
from ...config import Prepare
from ...diffusion import add_noise, classifier_free_guidance, noise_like
from ...models import StableDiffusion
from ..store.reuse import RowRef
from .shard_rows import Tensors, collate, load_row, store_shard


class TeacherCache:
    """The base's denoiser, which predicts both sides of guidance in one batch."""

    def __init__(
        self,
        base: StableDiffusion,
        device: torch.device,
        unconditional: Path,
        config: Prepare,
    ):
        """Load the denoiser. unconditional: file of the unconditional embeddings."""
        self.base = base
        self.device = device
        self.config = config
        texts = map_shard(unconditional)
        self.unconditional = self._to_device(texts)
        self.denoiser = base.denoiser().to(device, memory_format=torch.channels_last)
        self.schedule = base.noise_schedule().to(device)

    @torch.no_grad()
    def write(
        self,
        path: Path,
        keys: Sequence[str],
        text_rows: list[RowRef],
        latents_path: Path | None,
        shape: tuple[int, ...],
    ):
        """Write the predictions for the examples of a shard.

        keys: of the examples.
        text_rows: for each example, its caption's embeddings.
        latents_path: the examples' latents, for predictions on data.
        shape: [c, h, w] of a latent.
        """
        predict = self.predict_trajectories
        if self.config.teacher_cache == "data":
            predict = self.predict_on_data
        # Trajectories need the latents' shape alone.
        latents = torch.zeros(len(keys), *shape)
        if latents_path:
            latents = map_shard(latents_path)["latents"]
        # Each example is two rows of a batch, with and without its caption.
        size = max(1, self.config.batch_size // 2)
        parts = []
        for start in range(0, len(keys), size):
            rows = slice(start, start + size)
            texts = self._load_texts(text_rows[rows])
            parts.append(predict(latents[rows], keys[rows], texts))
        store_shard(path, collate(parts, torch.cat))

    def _load_texts(self, text_rows: list[RowRef]) -> Tensors:
        # The captions of a shard may be spread over many files.
        texts = collate(list(map(load_row, text_rows)))
        return self._to_device(texts)

    def _to_device(self, tensors: Tensors) -> Tensors:
        return {name: tensor.to(self.device) for name, tensor in tensors.items()}

    def predict(
        self,
        x_t: torch.Tensor,
        t: torch.Tensor,
        text: Tensors,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the predictions uncond and cond [n, c, h, w] for states x_t at timesteps t."""
        pooled = self._both_sides("pooled", text) if "pooled" in text else None
        prediction = self.base.predict(
            self.denoiser,
            x_t.repeat(2, 1, 1, 1),
            self.schedule.times(t).repeat(2),
            self._both_sides("embeddings", text),
            pooled,
        )
        return prediction.chunk(2)

    def _both_sides(self, name: str, text: Tensors) -> torch.Tensor:
        cond = text[name]
        negative = "negative" if name == "embeddings" else "negative_pooled"
        uncond = self.unconditional[negative].expand_as(cond)
        # The unconditional side comes first, as in diffusers' pipelines.
        return torch.cat([uncond, cond])

    def step(
        self,
        prediction: torch.Tensor,
        x_t: torch.Tensor,
        t: torch.Tensor,
        end: torch.Tensor,
    ) -> torch.Tensor:
        """Return the states after DDIM's step from timesteps t to timesteps `end`."""
        x_0 = self.schedule.x_0(prediction, x_t, t)
        eps = self.schedule.eps(prediction, x_t, t)
        return add_noise(x_0, eps, *self.schedule.levels(end))

    def predict_on_data(
        self,
        latents: torch.Tensor,
        keys: Sequence[str],
        text: Tensors,
    ) -> Tensors:
        """Return predictions on noised latents.

        Timesteps are spread evenly over the draws, and random within each share.
        """
        t = timesteps(keys, self.config)
        # Training makes the same noise again from seed, key and draw, so it is not stored.
        x_0 = latents.to(self.device)
        predictions = []
        for draw in range(self.config.teacher_samples):
            noise = self._noise(keys, draw, tuple(latents.shape[1:]))
            now = t[:, draw].to(self.device)
            x_t = add_noise(x_0, noise, *self.schedule.levels(now))
            predictions.append(self.predict(x_t, now, text))
        uncond, cond = _stack_halves(predictions)
        return {"t": t, "uncond": uncond, "cond": cond}

    def predict_trajectories(
        self,
        latents: torch.Tensor,
        keys: Sequence[str],
        text: Tensors,
    ) -> Tensors:
        """Return predictions along guided sampling, with a DDIM step for each draw.

        The latents give the shape. The first step begins with pure noise at the last timestep. It
        leads to a timestep of the first share, different for each example, so that the examples
        together meet all timesteps.
        Source: arXiv 2503.07274, sec. 3.
        """
        x_t = self._noise(keys, 0, tuple(latents.shape[1:]))
        t = timesteps(keys, self.config, together=True)
        now = torch.full_like(t[:, 0], N_TIMESTEPS - 1).to(self.device)
        guidance_scale = self.config.teacher_guidance_scale
        uncond, cond = self.predict(x_t, now, text)
        # All examples share the first state's timestep, so it is not stored.
        steps = []
        for end in t.to(self.device).unbind(1):
            guided = classifier_free_guidance(uncond, cond, guidance_scale)
            x_t = self.step(guided, x_t, now, end)
            uncond, cond = self.predict(x_t, end, text)
            steps.append((uncond, cond, x_t))
            now = end
        uncond, cond, states = _stack_halves(steps)
        return {"t": t, "uncond": uncond, "cond": cond, "x_t": states}

    def _noise(self, keys: Sequence[str], draw: int, shape: tuple[int, ...]) -> torch.Tensor:
        rows = [noise_like(self.config.seed, key, draw, shape) for key in keys]
        return torch.stack(rows).to(self.device)


def timesteps(keys: Sequence[str], config: Prepare, together: bool = False) -> torch.Tensor:
    """Return timesteps [n, draws], falling, one in each of `draws` equal shares.

    together: whether all of an example are at the same position of their shares.
    """
    rows = []
    draws = config.teacher_samples
    for key in keys:
        # The key and not the row seeds the generator: an example keeps its timesteps anywhere.
        name = f"timesteps {config.seed} {key}".encode()
        digest = blake2b(name, digest_size=7).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest))
        position = torch.rand(1 if together else draws, generator=generator)
        share = torch.arange(draws, 0, -1) - 1 + position
        t = (share * N_TIMESTEPS / draws).long()
        # Rounding may reach the end of the last share, which is no timestep.
        rows.append(t.clamp(0, N_TIMESTEPS - 1))
    return torch.stack(rows)


def _stack_halves(draws: list[tuple[torch.Tensor, ...]]) -> list[torch.Tensor]:
    """Return each column of the draws as fp16 [n, draws, c, h, w] on the CPU."""
    # Draws are converted before they are stacked, which takes half the memory.
    columns = []
    for tensors in zip(*draws, strict=True):
        halves = [tensor.half().cpu() for tensor in tensors]
        columns.append(torch.stack(halves, 1))
    return columns
