"""Batches from a cache. A batch is a pure function of seed and step, so a resumed training sees what it would have seen.

The files of a cache are described in `nbs_lib/prepare/cache.py`, which writes them.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from ..config import Train
from ..diffusion import noise_of
from ..files import file_hash, read_lines

TIMESTEPS = 1000


@dataclass(frozen=True)
class Batch:
    """latents, noise [n, c, h, w]; t [n] in [0, 1000); context and uncond [n, tokens, width]; w and weight [n]; example [n].

    context: of the captions, some of them dropped in finetune; uncond: of the negative prompt. w: the teacher's guidance
    scale; weight: of each example's loss; example: its place in the cache. answers: the teacher's kept predictions without
    and with the caption, [n, c, h, w]; x_t: the states they are about, where these are not the noised latents.
    pooled, uncond_pooled: context and uncond once more, pooled, [n, p]; None where the base's family has none.
    """

    latents: torch.Tensor
    noise: torch.Tensor
    t: torch.Tensor
    context: torch.Tensor
    uncond: torch.Tensor
    w: torch.Tensor
    weight: torch.Tensor
    example: torch.Tensor
    answers: tuple[torch.Tensor, torch.Tensor] | None = None
    x_t: torch.Tensor | None = None
    pooled: torch.Tensor | None = None
    uncond_pooled: torch.Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        moved = {name: part.to(device) for name, part in parts.items() if isinstance(part, torch.Tensor)}
        if self.answers:
            moved["answers"] = tuple(part.to(device).float() for part in self.answers)
        return replace(self, **moved)

    def at(self, t: torch.Tensor) -> "Batch":
        """The same examples and noise at other timesteps."""
        return replace(self, t=t)


class DataError(ValueError):
    """A cache that cannot be trained on: which, and what to do."""


def check_cache(folder: Path, teacher: str = "live"):
    """Errors: DataError where a file of the cache is missing or is not, byte for byte, the one that was written, or where
    the teacher's kept answers are asked for and there are none."""
    try:
        files = json.loads((folder / "cache.json").read_text())["files"]
        wrong = [name for name, digest in files.items() if file_hash(folder / name) != digest]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        files, wrong = {}, ["cache.json, or a file that it names,"]
    if wrong:
        raise DataError(f"cache {folder}: {wrong[0]} is missing or damaged; run notebooks/1_prepare.ipynb again, it is rebuilt")
    if teacher == "cached" and "answers.safetensors" not in files:
        raise DataError(
            f"cache {folder} has no answers of a teacher; run notebooks/1_prepare.ipynb with answers = 'data' or "
            f"'trajectories', or train with teacher = 'live'"
        )


class Examples:
    """A cache in memory: scaled latents, one text embedding for each distinct caption, the teacher's answers if asked for.

    own, prior, held_out: places of the examples that are trained on, of those that keep what the base knew, and of those
    that are never trained on.
    """

    def __init__(self, folder: Path, config: Train):
        self.config, self.meta = config, json.loads((folder / "cache.json").read_text())
        self.latents = load_file(folder / "latents.safetensors")["latents"]
        text = load_file(folder / "text.safetensors")
        self.embeddings, self.index = text["embeddings"], text["index"]
        self.empty, self.negative = text["empty"], text["negative"]
        self.pooled, self.empty_pooled, self.negative_pooled = map(text.get, ("pooled", "empty_pooled", "negative_pooled"))
        self.rows = read_lines(folder / "examples.jsonl")
        prior = [bool(row.get("prior")) for row in self.rows]
        own = [i for i, is_prior in enumerate(prior) if not is_prior]
        kept = min(config.held_out, len(own) // 4) if config.validate_every else 0
        self.own, self.held_out = torch.tensor(own[: len(own) - kept]), torch.tensor(own[len(own) - kept :], dtype=torch.long)
        self.prior = torch.tensor([i for i, is_prior in enumerate(prior) if is_prior], dtype=torch.long)
        cached = config.teacher == "cached"
        self.answers = load_file(folder / "answers.safetensors") if cached else {}

    def ids(self, example: torch.Tensor) -> list[str]:
        """The names of examples by their places."""
        return [self.rows[i]["id"] for i in example.tolist()]

    def batch(self, step: int, share: int, shares: int) -> Batch:
        """One share, `batch_size` examples, of the batch_size × shares that make step number `step`.

        All of the step is drawn for each share, so its content does not depend on how many passes or processes share it.
        """
        size = self.config.batch_size
        drawn = self._drawn(torch.Generator().manual_seed(self.config.seed * 1_000_003 + step), size * shares)
        return self._batch(*(part[share * size : (share + 1) * size] for part in drawn))

    def held_out_batches(self) -> Iterator[Batch]:
        """The held-out examples, each time with the same noise and timesteps, which are spread over all of them."""
        n, generator = len(self.held_out), torch.Generator().manual_seed(0)
        place = (torch.arange(n) + 0.5) / max(1, n)
        t, noise = (place * TIMESTEPS).long(), torch.randn(n, *self.latents.shape[1:], generator=generator)
        # of kept answers the draws in turn; no caption is dropped; w in the middle
        chance = torch.stack([place if self.answers else torch.ones(n), torch.full((n,), 0.5)], 1)
        for start in range(0, n, self.config.batch_size):
            yield self._batch(*(part[start : start + self.config.batch_size] for part in (self.held_out, t, noise, chance)))

    def _drawn(self, generator: torch.Generator, n: int) -> tuple[torch.Tensor, ...]:
        """Places of examples, timesteps, noise, two numbers in [0, 1) for each; finetune takes every other one of the prior."""
        picked = self.own[torch.randint(len(self.own), (n,), generator=generator)]
        t = torch.randint(TIMESTEPS, (n,), generator=generator)
        noise = torch.randn(n, *self.latents.shape[1:], generator=generator)
        chance = torch.rand(n, 2, generator=generator)
        if self.config.objective == "finetune":
            if len(self.prior):  # every other one, from the first or the second on: a step of one example has its turn too
                others = picked[int(torch.randint(2, (1,), generator=generator)) :: 2]
                others[:] = self.prior[torch.randint(len(self.prior), others.shape, generator=generator)]
            noise = noise + self.config.noise_offset * torch.randn(*noise.shape[:2], 1, 1, generator=generator)
        return picked, t, noise, chance

    def _batch(self, example: torch.Tensor, t: torch.Tensor, noise: torch.Tensor, chance: torch.Tensor) -> Batch:
        config, n, kept = self.config, len(example), {}
        if self.answers:
            draw = (chance[:, 0] * self.answers["t"].shape[1]).long()
            t, noise, kept = self._answered(example, draw)
        weight, dropped = torch.ones(n), torch.zeros(n, dtype=torch.bool)
        if config.objective == "finetune":
            dropped = chance[:, 0] < config.caption_dropout
            weight[torch.isin(example, self.prior)] = config.prior_weight
        w = config.guidance + chance[:, 1] * max(0.0, config.guidance_max - config.guidance)
        context, pooled = self.texts(example, dropped)
        uncond, uncond_pooled = self.unconditional(n)
        kept |= {"pooled": pooled, "uncond_pooled": uncond_pooled}
        return Batch(self.latents[example], noise, t, context, uncond, w, weight, example, **kept)

    def texts(self, example: torch.Tensor, dropped: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Context and pooled text of examples [n]: of their captions, or of the empty prompt where dropped [n] says so."""
        found = []
        for known, empty in ((self.embeddings, self.empty), (self.pooled, self.empty_pooled)):
            text = None if known is None else known[self.index[example]]
            if text is not None and dropped is not None:
                text = torch.where(dropped.view(-1, *[1] * empty.dim()), empty, text)
            found.append(text)
        return tuple(found)

    def unconditional(self, n: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Context and pooled text of the negative prompt, n times."""
        return tuple(part if part is None else part.expand(n, *part.shape) for part in (self.negative, self.negative_pooled))

    def _answered(self, example: torch.Tensor, draw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, dict]:
        """Timesteps, noise and kept answers of one draw of each example."""
        of, shape = self.answers, tuple(self.latents.shape[1:])
        kept = {"answers": (of["uncond"][example, draw], of["cond"][example, draw])}
        if "x_t" in of:
            kept["x_t"] = of["x_t"][example, draw].float()
            noise = torch.zeros(len(example), *shape)
        else:
            seed = self.meta["answers"]["seed"]
            pairs = zip(example.tolist(), draw.tolist(), strict=True)
            noise = torch.stack([noise_of(seed, *pair, shape) for pair in pairs])
        return of["t"][example, draw], noise, kept
