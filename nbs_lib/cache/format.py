"""The cache: latents, text embeddings and teacher predictions, in a folder named by a hash of
everything they depend on.

outputs/cache/KEY/
  cache.json                 the metadata below; written last
  examples.parquet           a row for each example: id, caption (a row of captions.parquet), key
                             (of its image's content, crop and mirroring), shard (an index into
                             cache.json's `shards`) and row in it, prior, flipped
  captions.parquet           a row for each distinct caption: caption, tokens (their number), shard
                             and row
  latents/NAME.safetensors   latents fp32 [n, c, h, w], all of one shape: posterior mean × the VAE's
                             scaling factor (after normalization, if an SDXL VAE has mean and
                             deviation in its settings)
  texts/NAME.safetensors     embeddings fp32 [m, tokens, width]; pooled fp32 [m, p] if the base's
                             family has it
  unconditional.safetensors  empty fp32 [tokens, width]: what the stock pipeline guides away from
                             without a negative prompt, the empty prompt's embedding or zeros
                             (SDXL); negative fp32 [tokens, width]: the negative prompt's, or
                             `empty` without one; empty_pooled and negative_pooled [p] if the family
                             has them
  answers/NAME.safetensors   on request: the teacher's predictions for a shard, see
                             `prepare/encode/teacher_cache.py`
  contact_sheet.png          some of the cropped pictures with their captions
  as_trained.png             pictures before and after the crop, and decoded by the VAE: those of
                             `reconstruction` that lose most
  example.png                the first of them, with its latents; its caption is in the file

cache.json has key, base (its name), revision, base_hash, resolution, examples, captions (m),
captions_cut, text_shape [tokens, width], shapes {"c h w": examples}, shards [{name, rows, shape
[c, h, w], answers}], texts [{name, rows}], negative, answers (the request, or null), images (false
without latents), spaces {content: hash}, files {name: SHA-256}, reconstruction {id: PSNR in dB of
what the VAE makes of some pictures, the worst first}. It holds no time and no path of the
machine, so the same cache built again is the same, file for file. Rows from an older cache were
encoded in other batches and may differ in their last bit.

NAME is a hash of a shard's content, so caches share equal shards as hard links. A cache is filled
beside its destination and renamed when complete. A cache with a missing or changed file is never
read.
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

META = "cache.json"
EXAMPLES = "examples.parquet"
CAPTIONS = "captions.parquet"
LATENTS = "latents"
TEXTS = "texts"
ANSWERS = "answers"
UNCONDITIONAL = "unconditional.safetensors"
SHEET = "contact_sheet.png"
AS_TRAINED = "as_trained.png"
EXAMPLE_SHEET = "example.png"
# int32 and rows of other tables, so that a million examples need little memory
EXAMPLE_COLUMNS = pyarrow.schema(
    [
        ("id", "string"),
        ("caption", "int32"),
        ("key", "string"),
        ("shard", "int32"),
        ("row", "int32"),
        ("prior", "bool"),
        ("flipped", "bool"),
    ]
)
CAPTION_COLUMNS = pyarrow.schema(
    [("caption", "string"), ("tokens", "int32"), ("shard", "int32"), ("row", "int32")]
)
# The fields of every cache.json, with their types.
METADATA_FIELDS = {
    "key": str,
    "base": str,
    "base_hash": str,
    "resolution": int,
    "examples": int,
    "captions": int,
    "captions_cut": int,
    "text_shape": list,
    "shapes": dict,
    "shards": list,
    "texts": list,
    "answers": dict | None,
    "images": bool,
    "spaces": dict,
    "files": dict,
    "reconstruction": dict,  # empty in caches of earlier versions, which have none
}
MAX_METADATA_SIZE = 32 << 20  # bytes of cache.json, which has a line for each file
N_TIMESTEPS = 1000  # of a noise schedule; the teacher's predictions are at timesteps below it


class CacheError(ValueError):
    """A folder that is no complete cache: which, and the file that is missing or changed."""


@dataclass(frozen=True)
class Cache:
    """An opened cache; its content is in the module's docstring. Tables are read on first use."""

    folder: Path
    meta: dict[str, Any]

    @cached_property
    def examples(self) -> pyarrow.Table:
        """A row for each example."""
        return pyarrow.parquet.read_table(self.folder / EXAMPLES)

    @cached_property
    def texts(self) -> pyarrow.Table:
        """A row for each distinct caption."""
        return pyarrow.parquet.read_table(self.folder / CAPTIONS)

    @property
    def ids(self) -> list[str]:
        """The name of each example."""
        return self.examples["id"].to_pylist()

    @property
    def captions(self) -> list[str]:
        """The caption of each example."""
        return self.texts["caption"].take(self.examples["caption"]).to_pylist()

    @property
    def unconditional(self) -> dict[str, torch.Tensor]:
        """The embeddings of the empty and the negative prompt."""
        return load_unconditional(self.folder)

    def latents(self, examples: list[int]) -> torch.Tensor:
        """Return latents fp32 [n, c, h, w] of examples by their indices; all of one shape."""
        shards = latent_shards(self.folder, self.meta)
        return _take_rows(shards, self.examples, examples)

    def embeddings(self, examples: list[int], name: str = "embeddings") -> torch.Tensor:
        """Return the text embeddings of examples' captions, fp32 [n, tokens, width].

        examples: indices
        name: or `pooled`, fp32 [n, p]
        """
        # many examples share a caption, which is encoded once
        captions = self.examples["caption"].take(examples).to_pylist()
        return _take_rows(text_shards(self.folder, self.meta, name), self.texts, captions)


def _take_rows(shards: Shards, table: pyarrow.Table, rows: list[int]) -> torch.Tensor:
    shard = torch.tensor(table["shard"].take(rows).to_pylist())
    row = torch.tensor(table["row"].take(rows).to_pylist())
    return shards.take(shard, row)


def latent_shards(folder: Path, meta: dict[str, Any]) -> Shards:
    """Return the latents of a cache."""
    return Shards(shard_files(folder / LATENTS, meta["shards"]), "latents")


def text_shards(folder: Path, meta: dict[str, Any], name: str = "embeddings") -> Shards:
    """Return the text embeddings of a cache.

    name: `embeddings` or `pooled`
    """
    return Shards(shard_files(folder / TEXTS, meta["texts"]), name)


def answer_shards(folder: Path, meta: dict[str, Any], name: str) -> Shards:
    """Return one tensor of the teacher's predictions in a cache.

    name: `t`, `uncond`, `cond` or, for trajectories, `x_t`
    """
    # predictions have names of their own, because they also depend on the teacher's settings
    return Shards(shard_files(folder / ANSWERS, meta["shards"], "answers"), name)


def shard_files(folder: Path, shards: list[dict[str, Any]], field: str = "name") -> list[Path]:
    """Return the files of shards in their order.

    folder: LATENTS, TEXTS or ANSWERS in a cache
    shards: of cache.json
    field: of a shard with the file's name, `name` or `answers`
    """
    return [folder / f"{shard[field]}.safetensors" for shard in shards]


def load_unconditional(folder: Path) -> dict[str, torch.Tensor]:
    """Return the embeddings of the empty and the negative prompt of a cache, by name."""
    return load_file(folder / UNCONDITIONAL)


def read_cache_metadata(folder: Path) -> dict[str, Any]:
    """Return the content of cache.json.

    Errors: CacheError if it is missing or damaged, or names files outside the cache
    """
    try:
        # a cache may be copied from elsewhere, so its content is checked like any foreign file
        meta = {"reconstruction": {}} | read_json(folder / META, MAX_METADATA_SIZE)
        if not _is_complete(meta):
            raise TypeError
    # one error for all damage: the remedy is the same, a new build
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise CacheError(f"cache {str(folder)!r}: {META} is missing or damaged") from None
    return meta


def _is_complete(meta: dict[str, Any]) -> bool:
    if not all(isinstance(meta[name], kind) for name, kind in METADATA_FIELDS.items()):
        return False
    # its files are opened and hashed: a name must not lead out of the cache
    if not all(map(is_plain_relative, meta["files"])):
        return False
    if not all(isinstance(ratio, float) for ratio in meta["reconstruction"].values()):
        return False
    names = [shard["name"] for shard in (*meta["shards"], *meta["texts"])]
    return all(isinstance(text, str) for text in (*names, *meta["files"].values()))


def damaged_files(folder: Path, meta: dict[str, Any]) -> list[str]:
    """Return the names of a cache's files that are missing or changed."""
    return [
        name
        for name, digest in meta["files"].items()
        if not isfile(folder / name) or file_hash(folder / name) != digest
    ]


def open_cache(folder: Path) -> Cache:
    """Return a cache after a check of every byte.

    Errors: CacheError if a file is missing or changed
    """
    meta = read_cache_metadata(folder)
    # every byte, because a wrong latent would train silently
    damaged = damaged_files(folder, meta)
    if damaged:
        raise CacheError(f"cache {str(folder)!r}: {damaged[0]} is missing or damaged")
    return Cache(folder, meta)
