"""Batches from a cache. A batch is a pure function of seed and step, so a resumed training sees what it would have seen.

The files of a cache are described in `nbs_lib/prepare/cache.py`, which writes them.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from ..files import file_hash

TIMESTEPS = 1000


@dataclass(frozen=True)
class Batch:
    """latents, noise [n, c, h, w]; t [n] in [0, 1000); context and empty [n, tokens, width]."""

    latents: torch.Tensor
    noise: torch.Tensor
    t: torch.Tensor
    context: torch.Tensor
    empty: torch.Tensor


class DataError(ValueError):
    """A cache that cannot be trained on: which, and what to do."""


def check_cache(folder: Path):
    """Errors: DataError where a file of the cache is missing or is not, byte for byte, the one that was written."""
    try:
        files = json.loads((folder / "cache.json").read_text())["files"]
        wrong = [name for name, digest in files.items() if file_hash(folder / name) != digest]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        wrong = ["cache.json, or a file that it names,"]
    if wrong:
        raise DataError(f"cache {folder}: {wrong[0]} is missing or damaged; run notebooks/1_prepare.ipynb again, it is rebuilt")


class Examples:
    """A cache in memory: scaled latents, and one text embedding for each distinct caption."""

    def __init__(self, folder: Path):
        self.meta = json.loads((folder / "cache.json").read_text())
        self.latents = load_file(folder / "latents.safetensors")["latents"]
        text = load_file(folder / "text.safetensors")
        self.embeddings, self.index, self.empty = text["embeddings"], text["index"], text["empty"]

    def __len__(self) -> int:
        return len(self.latents)

    def batch(self, seed: int, step: int, size: int, rank: int, processes: int, device: torch.device) -> Batch:
        """This process' part, `size` examples, of the step's batch of size × processes.

        The whole batch is drawn by every process, so its content does not depend on how many share it.
        """
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        whole = size * processes
        picked = torch.randint(len(self), (whole,), generator=generator)
        t = torch.randint(TIMESTEPS, (whole,), generator=generator)
        noise = torch.randn(whole, *self.latents.shape[1:], generator=generator)
        mine = slice(rank * size, (rank + 1) * size)
        picked = picked[mine]
        parts = (self.latents[picked], noise[mine], t[mine], self.embeddings[self.index[picked]])
        empty = self.empty.expand(size, *self.empty.shape)
        return Batch(*(part.to(device) for part in (*parts, empty)))
