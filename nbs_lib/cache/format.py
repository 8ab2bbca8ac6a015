"""The cache: latents, text embeddings and teacher's answers in a folder named by a hash over everything they depend on.

    outputs/cache/KEY/
      cache.json             what is in it, and the SHA-256 of each other file; written last
      examples.parquet       a row for each example: id, caption (a row of captions.parquet), key (of its image's content
                             and how it is cut and turned), shard (a place in cache.json's `shards`) and row in it, prior,
                             flipped
      captions.parquet       a row for each distinct caption: caption, tokens (how many it has), shard and row
      latents/NAME.safetensors   latents fp32 [n, c, h, w], all of one shape: posterior mean × the VAE's scaling factor (after
                             its own mean and deviation are taken out, with a VAE of SDXL's that says them)
      texts/NAME.safetensors     embeddings fp32 [m, tokens, width], and pooled fp32 [m, p] where the base's family has it
      unconditional.safetensors  empty fp32 [tokens, width], what the stock pipeline guides away from without a negative
                             prompt: the empty prompt's embedding, or zeros (SDXL); negative fp32 [tokens, width], of
                             guidance's unconditional side: the negative prompt's, or `empty` where there is none;
                             empty_pooled and negative_pooled [p], where the family has them
      answers/NAME.safetensors   where asked for: the teacher's answers of a shard, see `answers.py`
      contact_sheet.png      some of the pictures as they were cut, with their captions
      as_trained.png         some as they were, as they were cut, and as the VAE gives them back

    cache.json has key, base (name, as given), revision, base_hash, resolution, examples, captions (m), captions_cut, text_shape
    [tokens, width], shapes {"c h w": examples}, shards [{name, rows, shape [c, h, w], answers}], texts [{name, rows}],
    negative, answers (what was asked, or null), images (whether there are latents), spaces {what: hash}, files {name:
    SHA-256}. It holds no time and no path of the machine, so a cache that is built again is the same, file for file.
    Rows taken over from an older cache were encoded in other batches, and may differ in their last bit from ones encoded
    anew.

NAME is a hash over what a shard holds, so caches share their equal shards as links to one file. A cache is filled beside its
place and renamed into it when whole. One with a file missing or changed is never read.
"""

from dataclasses import dataclass
from functools import cached_property
from os.path import isfile
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import torch
from safetensors.torch import load_file

from ..files import file_hash
from ..run.record import is_plain_relative
from ..untrusted_files import read_json
from .shards import Shards

META, EXAMPLES, CAPTIONS = "cache.json", "examples.parquet", "captions.parquet"
LATENTS, TEXTS, ANSWERS, UNCONDITIONAL = "latents", "texts", "answers", "unconditional.safetensors"
SHEET, AS_TRAINED = "contact_sheet.png", "as_trained.png"
TIMESTEPS = 1000  # of the bases' noise schedules
EXAMPLE_COLUMNS = pyarrow.schema(
    [("id", "string"), ("caption", "int32"), ("key", "string"), ("shard", "int32"), ("row", "int32"), ("prior", "bool"),
     ("flipped", "bool")]
)  # fmt: skip
CAPTION_COLUMNS = pyarrow.schema(
    [("caption", "string"), ("tokens", "int32"), ("shard", "int32"), ("row", "int32")]
)


KINDS = {
    "key": str, "base": str, "base_hash": str, "resolution": int, "examples": int, "captions": int, "captions_cut": int,
    "text_shape": list, "shapes": dict, "shards": list, "texts": list, "answers": dict | None, "images": bool, "spaces": dict,
    "files": dict,
}  # fmt: skip
"""What is in every cache.json, with its type."""
MAX_METADATA_SIZE = 32 << 20
"""Bytes of cache.json, which has a line for each file."""


class CacheError(ValueError):
    """A folder that is no whole cache: which, and the file that is missing or changed."""


@dataclass(frozen=True)
class Cache:
    """An opened cache; what is in it is in the module's docstring. Tables are read when they are asked for."""

    folder: Path
    meta: dict[str, Any]

    @cached_property
    def examples(self) -> pyarrow.Table:
        return pyarrow.parquet.read_table(self.folder / EXAMPLES)

    @cached_property
    def texts(self) -> pyarrow.Table:
        return pyarrow.parquet.read_table(self.folder / CAPTIONS)

    @property
    def ids(self) -> list[str]:
        return self.examples["id"].to_pylist()

    @property
    def captions(self) -> list[str]:
        """The caption of each example."""
        return self.texts["caption"].take(self.examples["caption"]).to_pylist()

    @property
    def unconditional(self) -> dict[str, torch.Tensor]:
        return load_file(self.folder / UNCONDITIONAL)

    def latents(self, places: list[int]) -> torch.Tensor:
        """fp32 [n, c, h, w] of examples by their places, all of one shape."""
        return self._taken(LATENTS, "shards", "latents", self.examples, places)

    def embeddings(self, places: list[int], name: str = "embeddings") -> torch.Tensor:
        """fp32 [n, tokens, width] of examples' captions by the examples' places; name: or `pooled`, [n, p]."""
        return self._taken(
            TEXTS, "texts", name, self.texts, self.examples["caption"].take(places).to_pylist()
        )

    def _taken(
        self, folder: str, listed: str, tensor: str, table: pyarrow.Table, places: list[int]
    ) -> torch.Tensor:
        files = [self.folder / folder / f"{each['name']}.safetensors" for each in self.meta[listed]]
        shard, row = (
            torch.tensor(table[name].take(places).to_pylist()) for name in ("shard", "row")
        )
        return Shards(files, tensor).take(shard, row)


def load_metadata(folder: Path) -> dict[str, Any]:
    """cache.json. Errors: CacheError where it is missing or damaged, or names files elsewhere."""
    try:
        meta = read_json(folder / META, MAX_METADATA_SIZE)
        whole = all(isinstance(meta[name], kind) for name, kind in KINDS.items())
        whole = whole and all(
            is_plain_relative(name) and isinstance(digest, str)
            for name, digest in meta["files"].items()
        )
        if not whole or not all(
            isinstance(each["name"], str) for each in (*meta["shards"], *meta["texts"])
        ):
            raise TypeError
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise CacheError(f"cache {str(folder)!r}: {META} is missing or damaged") from None
    return meta


def damage(folder: Path, meta: dict[str, Any]) -> list[str]:
    """The names of a cache's files that are missing or are not, byte for byte, what was written."""
    return [name for name, digest in meta["files"].items() if not _holds(folder / name, digest)]


def _holds(path: Path, digest: str) -> bool:
    return isfile(path) and file_hash(path) == digest


def open_cache(folder: Path) -> Cache:
    """A cache, every byte of it checked. Errors: CacheError where a file is missing or changed."""
    meta = load_metadata(folder)
    if wrong := damage(folder, meta):
        raise CacheError(f"cache {str(folder)!r}: {wrong[0]} is missing or damaged")
    return Cache(folder, meta)
