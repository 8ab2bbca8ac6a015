"""The cache: latents and text embeddings in a folder named by a hash over everything that they depend on.

    outputs/cache/KEY/
      cache.json              what is in it, and the SHA-256 of each other file; written last
      latents.safetensors     latents     fp32  [n, c, h, w], posterior mean × the VAE's scaling factor
      text.safetensors        embeddings  fp32  [m, tokens, width], one for each distinct caption
                              index       int64 [n], the embedding of each example
                              empty       fp32  [tokens, width], of the empty prompt
      examples.jsonl          a line for each example: id, caption
      skipped.jsonl           a line for each thing that could not be used: id, reason
      contact_sheet.png       some of the pictures, as the VAE saw them

    cache.json has key, base (name, as given), base_hash, resolution, examples, captions (m), captions_cut, skipped,
    latent_shape [c, h, w], text_shape [tokens, width], files {name: SHA-256}. It holds no time and no path of the
    machine, so a cache that is built again is the same, file for file.

A cache is built beside its place and renamed into it when whole. One with a file missing or changed is never read:
`open_cache` names the file, `build_or_reuse` builds the cache again.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from .. import models
from ..files import beside, file_hash, read_lines, remove, remove_leftovers, value_hash, write_atomic, write_lines
from ..models import Base
from . import encode, images, look
from .sources import Selection

META, LATENTS, TEXT = "cache.json", "latents.safetensors", "text.safetensors"
EXAMPLES, SKIPPED, SHEET = "examples.jsonl", "skipped.jsonl", "contact_sheet.png"
TRANSFORM = (encode, images, models)
"""The modules, besides this one, whose source decides what is trained on."""


class CacheError(ValueError):
    """A folder that is no whole cache: which, and the file that is missing or changed."""


@dataclass(frozen=True)
class Cache:
    """An opened cache; shapes in the module's docstring."""

    folder: Path
    latents: torch.Tensor
    embeddings: torch.Tensor
    index: torch.Tensor
    empty: torch.Tensor
    ids: list[str]
    captions: list[str]
    skipped: list[dict[str, str]]
    meta: dict[str, Any]


def cache_key(selection: Selection, base: Base, resolution: int) -> str:
    """Hash over all that changes what a cache holds, 64 hex digits."""
    return value_hash(
        {
            "examples": [[each.id, each.image_hash, each.caption] for each in selection.examples],
            "skipped": [[each.id, each.reason] for each in selection.skipped],
            "base": [base.name, base.hash],
            "resolution": resolution,
            "dtype": "float32",
            "transform": [file_hash(Path(path)) for path in (__file__, *(module.__file__ for module in TRANSFORM))],
        }
    )


def open_cache(folder: Path) -> Cache:
    """Read a cache, every byte checked. Errors: CacheError where a file is missing or changed."""
    try:
        meta = json.loads((folder / META).read_text())
        files = {name: str(digest) for name, digest in meta["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise CacheError(f"cache {str(folder)!r}: {META} is missing or damaged") from None
    for name in (LATENTS, TEXT, EXAMPLES, SKIPPED, SHEET):
        path = folder / name
        if not path.is_file() or file_hash(path) != files.get(name):
            raise CacheError(f"cache {str(folder)!r}: {name} is missing or damaged")
    examples, skipped = read_lines(folder / EXAMPLES), read_lines(folder / SKIPPED)
    ids, captions = [each["id"] for each in examples], [each["caption"] for each in examples]
    latents = load_file(folder / LATENTS)["latents"]
    return Cache(folder, latents, **load_file(folder / TEXT), ids=ids, captions=captions, skipped=skipped, meta=meta)


def build_or_reuse(store: Path, selection: Selection, base: Base, resolution: int, batch_size: int) -> tuple[Cache, bool]:
    """The cache of these examples in the folder `store`, and whether it was there already."""
    key = cache_key(selection, base, resolution)
    folder = store / key
    remove_leftovers(store)
    if folder.exists():
        try:
            return open_cache(folder), True
        except CacheError as damage:
            print(f"{damage}; it is built again")
            remove(folder)
    with beside(folder) as part:
        _build(part, key, selection, base, resolution, batch_size)
    return open_cache(folder), False


def _build(part: Path, key: str, selection: Selection, base: Base, resolution: int, batch_size: int):
    captions = [each.caption for each in selection.examples]
    latents = encode.encode_images(base, selection.examples, resolution, batch_size)
    text = encode.encode_captions(base, captions, batch_size)
    save_file({"latents": latents}, part / LATENTS)
    save_file(text, part / TEXT)
    write_lines(part / EXAMPLES, [{"id": each.id, "caption": each.caption} for each in selection.examples])
    write_lines(part / SKIPPED, [{"id": each.id, "reason": each.reason} for each in selection.skipped])
    shown = look.spread(selection.examples)
    squares = [images.to_square(each.load(), resolution) for each in shown]
    look.contact_sheet(squares, [each.caption for each in shown]).save(part / SHEET)
    meta = {
        "key": key,
        "base": base.name,
        "base_hash": base.hash,
        "resolution": resolution,
        "examples": len(captions),
        "captions": len(text["embeddings"]),
        "captions_cut": encode.captions_cut(base, captions),
        "skipped": len(selection.skipped),
        "latent_shape": list(latents.shape[1:]),
        "text_shape": list(text["empty"].shape),
        "files": {name: file_hash(part / name) for name in (LATENTS, TEXT, EXAMPLES, SKIPPED, SHEET)},
    }
    write_atomic(part / META, json.dumps(meta, indent=1, ensure_ascii=False) + "\n")
