"""The cache: latents and text embeddings in a folder named by a hash over everything that they depend on.

    outputs/cache/KEY/
      cache.json              what is in it, and the SHA-256 of each other file; written last
      latents.safetensors     latents     fp32  [n, c, h, w], posterior mean × the VAE's scaling factor (after its own mean
                                                and deviation are taken out, with a VAE of SDXL's that says them)
      text.safetensors        embeddings  fp32  [m, tokens, width], one for each distinct caption
                              index       int64 [n], the embedding of each example
                              empty       fp32  [tokens, width], what the stock pipeline guides away from without a
                                                negative prompt: the empty prompt's embedding, or zeros (SDXL)
                              negative    fp32  [tokens, width], of guidance's unconditional side: the negative prompt's,
                                                or `empty` where there is none
                              pooled [m, p], empty_pooled [p], negative_pooled [p], fp32: the same, pooled; only where the
                                                base's family has them (SDXL)
      answers.safetensors     where asked for: the teacher's answers, see `answers.py`
      examples.jsonl          a line for each example: id, caption, and prior where it is one
      skipped.jsonl           a line for each thing that could not be used: id, reason
      contact_sheet.png       some of the pictures, as the VAE saw them

    cache.json has key, base (name, as given), base_hash, resolution, examples, captions (m), captions_cut, skipped,
    latent_shape [c, h, w], text_shape [tokens, width], negative, answers (what was asked, or null), files {name:
    SHA-256}. It holds no time and no path of the machine, so a cache that is built again is the same, file for file.

A cache is built beside its place and renamed into it when whole. One with a file missing or changed is never read:
`open_cache` names the file, `build_or_reuse` builds the cache again.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from .. import diffusion, models
from ..config import Prepare
from ..files import beside, file_hash, read_lines, remove, value_hash, write_atomic, write_lines
from ..machine import versions
from ..models import Base
from . import answers, encode, images, look
from .sources import Example, Selection

META, LATENTS, TEXT = "cache.json", "latents.safetensors", "text.safetensors"
EXAMPLES, SKIPPED, SHEET = "examples.jsonl", "skipped.jsonl", "contact_sheet.png"
TRANSFORM = [__file__, *(module.__file__ for module in (answers, diffusion, encode, images, look))]
TRANSFORM += sorted(Path(models.__file__).parent.glob("*.py"))
"""The modules whose source decides what is trained on."""
LIBRARIES = ("torch", "diffusers", "transformers", "numpy", "pillow")
"""The packages that it rests on."""


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
    negative: torch.Tensor
    ids: list[str]
    captions: list[str]
    skipped: list[dict[str, str]]
    meta: dict[str, Any]
    pooled: torch.Tensor | None = None
    empty_pooled: torch.Tensor | None = None
    negative_pooled: torch.Tensor | None = None


def cache_key(selection: Selection, base: Base, config: Prepare) -> str:
    """Hash over all that changes what a cache holds, 64 hex digits."""
    return value_hash(
        {
            "examples": [[each.id, each.image_hash, each.caption, each.prior] for each in selection.examples],
            "skipped": [[each.id, each.reason] for each in selection.skipped],
            "base": [base.name, base.hash],
            "resolution": config.resolution,
            "negative": config.negative,
            "answers": asked(config),
            "dtype": "float32",
            "versions": {name: known for name, known in versions().items() if name in LIBRARIES},
            "transform": [file_hash(Path(path)) for path in TRANSFORM],
        }
    )


def asked(config: Prepare) -> dict[str, Any] | None:
    """What the teacher is asked, as the cache records it; None for nothing."""
    if config.answers == "none":
        return None
    told = {"states": config.answers, "draws": config.draws, "seed": config.seed}
    return told | ({"guidance": config.answers_guidance} if config.answers == "trajectories" else {})


def open_cache(folder: Path) -> Cache:
    """Read a cache, every byte checked. Errors: CacheError where a file is missing or changed."""
    try:
        meta = json.loads((folder / META).read_text())
        files = {name: str(digest) for name, digest in meta["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise CacheError(f"cache {str(folder)!r}: {META} is missing or damaged") from None
    for name in dict.fromkeys((LATENTS, TEXT, EXAMPLES, SKIPPED, SHEET, *files)):
        path = folder / name
        if not path.is_file() or file_hash(path) != files.get(name):
            raise CacheError(f"cache {str(folder)!r}: {name} is missing or damaged")
    examples, skipped = read_lines(folder / EXAMPLES), read_lines(folder / SKIPPED)
    ids, captions = [each["id"] for each in examples], [each["caption"] for each in examples]
    latents = load_file(folder / LATENTS)["latents"]
    return Cache(folder, latents, **load_file(folder / TEXT), ids=ids, captions=captions, skipped=skipped, meta=meta)


def build_or_reuse(store: Path, selection: Selection, base: Base, config: Prepare) -> tuple[Cache, bool]:
    """The cache of these examples in the folder `store`, and whether it was there already."""
    key = cache_key(selection, base, config)
    folder = store / key
    if folder.exists():
        try:
            return open_cache(folder), True
        except CacheError as damage:
            print(f"{damage}; it is built again")
            remove(folder)
    with beside(folder) as part:
        _build(part, key, selection, base, config)
    return open_cache(folder), False


def _build(part: Path, key: str, selection: Selection, base: Base, config: Prepare):
    captions = [each.caption for each in selection.examples]
    latents = encode.encode_images(base, selection.examples, config.resolution, config.batch_size)
    text = encode.encode_captions(base, captions, config.negative, config.batch_size)
    save_file({"latents": latents}, part / LATENTS)
    save_file(text, part / TEXT)
    if config.answers != "none":
        save_file(answers.ask(base, latents, text, config), part / answers.FILE)
    write_lines(part / EXAMPLES, [_row(each) for each in selection.examples])
    write_lines(part / SKIPPED, [{"id": each.id, "reason": each.reason} for each in selection.skipped])
    shown = look.spread(selection.examples)
    squares = [images.to_square(each.load(), config.resolution) for each in shown]
    look.contact_sheet(squares, [each.caption for each in shown]).save(part / SHEET)
    meta = {
        "key": key,
        "base": base.name,
        "base_hash": base.hash,
        "resolution": config.resolution,
        "examples": len(captions),
        "captions": len(text["embeddings"]),
        "captions_cut": encode.captions_cut(base, captions),
        "skipped": len(selection.skipped),
        "latent_shape": list(latents.shape[1:]),
        "text_shape": list(text["empty"].shape),
        "negative": config.negative,
        "answers": asked(config),
        "files": {path.name: file_hash(path) for path in sorted(part.iterdir())},
    }
    write_atomic(part / META, json.dumps(meta, indent=1, ensure_ascii=False) + "\n")


def _row(example: Example) -> dict[str, Any]:
    return {"id": example.id, "caption": example.caption} | ({"prior": True} if example.prior else {})
