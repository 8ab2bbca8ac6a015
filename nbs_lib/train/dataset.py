"""Batches from a cache. A batch is a pure function of seed and step, so a resumed training sees what it would have seen.

The files of a cache are described in `nbs_lib/cache/format.py`, which writes them.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pyarrow.compute
import pyarrow.parquet
import torch
from safetensors.torch import load_file

from ..cache.shards import Shards
from ..config import Train
from ..config.validation import setting
from ..diffusion import noise_like
from ..files import file_hash
from .batch import Batch

TIMESTEPS = 1000


class DataError(ValueError):
    """A cache that cannot be trained on: which, and what to do."""


def check_cache(folder: Path, config: Train):
    """Errors: DataError where a file of the cache is missing or is not, byte for byte, the one that was written, where the
    teacher's kept answers are asked for and there are none, or where there are no images and they are needed."""
    again = "run notebooks/1_prepare.ipynb"
    try:
        meta = json.loads((folder / "cache.json").read_text("utf-8"))
        wrong = [
            name for name, digest in meta["files"].items() if file_hash(folder / name) != digest
        ]
        answers, images = meta["answers"], meta["images"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise DataError(
            f"cache {folder}: a file of it is missing or damaged; {again} again, it is rebuilt"
        ) from None
    if wrong:
        raise DataError(
            f"cache {folder}: {wrong[0]} is missing or damaged; {again} again, it is rebuilt"
        )
    if config.teacher == "cached" and not answers:
        raise DataError(
            f"cache {folder} has no answers of a teacher; {again} with {setting('prepare', 'teacher_cache', 'data')} or "
            f"'trajectories', or train with {setting('train', 'teacher', 'live')}"
        )
    if not images and not (config.teacher == "cached" and answers["states"] == "trajectories"):
        raise DataError(
            f"cache {folder} has prompts without images; {again} with {setting('prepare', 'teacher_cache', 'trajectories')} "
            f"and train with {setting('train', 'teacher', 'cached')}, or give it images"
        )


class Examples:
    """A cache: small tables in memory, and tensors that are mapped, so that only what a batch needs is read.

    own, prior, held_out: places of the examples that are trained on, of those that keep what the base knew, and of those
    that are never trained on, nor are their mirrored copies.
    """

    def __init__(self, folder: Path, config: Train):
        self.config, self.meta = config, json.loads((folder / "cache.json").read_text("utf-8"))
        self.table = _table(folder / "examples.parquet")
        captions = _table(folder / "captions.parquet", ["shard", "row"])
        self.shard, self.row, self.caption = (
            _numbers(self.table[name]) for name in ("shard", "row", "caption")
        )
        self.text_shard, self.text_row = (_numbers(captions[name]) for name in ("shard", "row"))
        shards, texts = (
            self.meta["shards"],
            [f"{each['name']}.safetensors" for each in self.meta["texts"]],
        )
        self.latents = Shards(
            [folder / "latents" / f"{each['name']}.safetensors" for each in shards], "latents"
        )
        self.texts_of = {
            name: Shards([folder / "texts" / file for file in texts], name)
            for name in ("embeddings", "pooled")
        }
        self.away = load_file(folder / "unconditional.safetensors")
        answers = [folder / "answers" / f"{each['answers']}.safetensors" for each in shards]
        names = {"t", "uncond", "cond"} | (
            {"x_t"} if (self.meta["answers"] or {}).get("states") == "trajectories" else set()
        )
        self.answers = (
            {name: Shards(answers, name) for name in names} if config.teacher == "cached" else {}
        )
        self.shapes = sorted({tuple(each["shape"]) for each in shards})
        self.shape = torch.tensor([self.shapes.index(tuple(each["shape"])) for each in shards])[
            self.shard
        ]
        self._divide()

    def _divide(self):
        prior, flipped = (_numbers(self.table[name]).bool() for name in ("prior", "flipped"))
        own = (~prior & ~flipped).nonzero().flatten()
        kept = (
            min(self.config.validation_examples, len(own) // 4)
            if self.config.validation_steps
            else 0
        )
        self.held_out, self.prior = own[len(own) - kept :], prior.nonzero().flatten()
        learned = ~prior
        if kept:
            learned &= ~_numbers(
                pyarrow.compute.is_in(self.table["id"], self._ids(self.held_out))
            ).bool()
        self.own = learned.nonzero().flatten()
        self._own = [self.own[self.shape[self.own] == i] for i in range(len(self.shapes))]
        self._prior = [self.prior[self.shape[self.prior] == i] for i in range(len(self.shapes))]

    def ids(self, example: torch.Tensor) -> list[str]:
        """The names of examples by their places."""
        return self._ids(example).to_pylist()

    def _ids(self, example: torch.Tensor) -> pyarrow.ChunkedArray:
        places = pyarrow.py_buffer(example.cpu().contiguous().numpy())
        return self.table["id"].take(
            pyarrow.Array.from_buffers(pyarrow.int64(), len(example), [None, places])
        )

    def shape_of(self, example: torch.Tensor) -> tuple[int, ...]:
        """[c, h, w] of the latents of examples, which are all of one shape."""
        return self.shapes[int(self.shape[example[0]])]

    def batch(self, step: int, share: int, shares: int) -> Batch:
        """One share, `batch_size` examples, of the batch_size × shares that make step number `step`.

        All of the step is drawn for each share, so its content does not depend on how many passes or processes share it.
        """
        size = self.config.batch_size
        drawn = self._drawn(
            torch.Generator().manual_seed(self.config.seed * 1_000_003 + step), size * shares
        )
        return self._batch(*(part[share * size : (share + 1) * size] for part in drawn))

    def held_out_batches(self) -> Iterator[Batch]:
        """The held-out examples, each time with the same noise and timesteps, which are spread over all of them."""
        n, generator = len(self.held_out), torch.Generator().manual_seed(0)
        place = (torch.arange(n) + 0.5) / max(1, n)
        t = (place * TIMESTEPS).long()
        # of kept answers the draws in turn; no caption is dropped; w in the middle
        chance = torch.stack([place if self.answers else torch.ones(n), torch.full((n,), 0.5)], 1)
        for which, shape in enumerate(self.shapes):
            rows = (self.shape[self.held_out] == which).nonzero().flatten()
            noise = torch.randn(len(rows), *shape, generator=generator)
            for start in range(0, len(rows), self.config.batch_size):
                part = slice(start, start + self.config.batch_size)
                yield self._batch(
                    self.held_out[rows[part]], t[rows[part]], noise[part], chance[rows[part]]
                )

    def _drawn(self, generator: torch.Generator, n: int) -> tuple[torch.Tensor, ...]:
        """Places of examples of one shape, timesteps, noise, two numbers in [0, 1) for each; finetune takes every other one
        of the prior, if that has examples of this shape."""
        which = 0
        if len(self.shapes) > 1:  # each as often as it has examples
            which = int(
                self.shape[self.own[torch.randint(len(self.own), (1,), generator=generator)]]
            )
        own, prior = self._own[which], self._prior[which]
        picked = own[torch.randint(len(own), (n,), generator=generator)]
        t = torch.randint(TIMESTEPS, (n,), generator=generator)
        noise = torch.randn(n, *self.shapes[which], generator=generator)
        chance = torch.rand(n, 2, generator=generator)
        if self.config.objective == "finetune":
            if len(
                prior
            ):  # every other one, from the first or the second on: a step of one example has its turn too
                others = picked[int(torch.randint(2, (1,), generator=generator)) :: 2]
                others[:] = prior[torch.randint(len(prior), others.shape, generator=generator)]
            noise = noise + self.config.noise_offset * torch.randn(
                *noise.shape[:2], 1, 1, generator=generator
            )
        return picked, t, noise, chance

    def _batch(
        self, example: torch.Tensor, t: torch.Tensor, noise: torch.Tensor, chance: torch.Tensor
    ) -> Batch:
        config, n, kept = self.config, len(example), {}
        if self.answers:
            draw = (chance[:, 0] * self.answers["t"].tensor_in(0).shape[1]).long()
            t, noise, kept = self._answered(example, draw)
        weight, dropped = torch.ones(n), torch.zeros(n, dtype=torch.bool)
        if config.objective == "finetune":
            dropped = chance[:, 0] < config.caption_dropout
            weight[torch.isin(example, self.prior)] = config.prior_loss_weight
        w = config.guidance_scale + chance[:, 1] * max(
            0.0, config.guidance_scale_max - config.guidance_scale
        )
        context, pooled = self.texts(example, dropped)
        uncond, uncond_pooled = self.unconditional(n)
        kept |= {"pooled": pooled, "uncond_pooled": uncond_pooled}
        return Batch(self.clean(example), noise, t, context, uncond, w, weight, example, **kept)

    def clean(self, example: torch.Tensor) -> torch.Tensor:
        """The latents of examples of one shape; zeros for prompts without images, of which only kept states are used."""
        if not self.meta["images"]:
            return torch.zeros(len(example), *self.shape_of(example))
        return self.latents.take(self.shard[example], self.row[example])

    def texts(
        self, example: torch.Tensor, dropped: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Context and pooled text of examples [n]: of their captions, or of the empty prompt where dropped [n] says so."""
        found, caption = [], self.caption[example]
        for name, empty in (
            ("embeddings", self.away["empty"]),
            ("pooled", self.away.get("empty_pooled")),
        ):
            text = None
            if empty is not None:
                text = self.texts_of[name].take(self.text_shard[caption], self.text_row[caption])
            if text is not None and dropped is not None:
                text = torch.where(dropped.view(-1, *[1] * empty.dim()), empty, text)
            found.append(text)
        return tuple(found)

    def unconditional(self, n: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Context and pooled text of the negative prompt, n times."""
        parts = (self.away["negative"], self.away.get("negative_pooled"))
        return tuple(part if part is None else part.expand(n, *part.shape) for part in parts)

    def _answered(
        self, example: torch.Tensor, draw: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, dict]:
        """Timesteps, noise and kept answers of one draw of each example."""
        shape, here = self.shape_of(example), (self.shard[example], self.row[example], draw)
        kept = {"answers": tuple(self.answers[side].take(*here) for side in ("uncond", "cond"))}
        if "x_t" in self.answers:
            kept["x_t"] = self.answers["x_t"].take(*here).float()
            noise = torch.zeros(len(example), *shape)
        else:
            seed, keys = (
                self.meta["answers"]["seed"],
                self.table["key"].take(example.tolist()).to_pylist(),
            )
            noise = torch.stack(
                [noise_like(seed, *each, shape) for each in zip(keys, draw.tolist(), strict=True)]
            )
        return self.answers["t"].take(*here), noise, kept


def _table(path: Path, columns: list[str] | None = None) -> pyarrow.Table:
    """A parquet file. Not by pyarrow's `read_table`, nor are columns read by its `array` or `to_numpy`: they would import its
    data sets and pandas in every process."""
    with pyarrow.parquet.ParquetFile(path) as file:
        return file.read(columns)


def _numbers(column: pyarrow.ChunkedArray) -> torch.Tensor:
    """A column without gaps, as a tensor of int64."""
    return torch.from_dlpack(column.cast(pyarrow.int64()).combine_chunks()).clone()
