"""A cache of zeros, shaped as a preparation would shape it, to plan a training's memory on."""

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import torch
from safetensors.torch import save_file

from ..cache.format import (
    ANSWERS,
    CAPTION_COLUMNS,
    CAPTIONS,
    EXAMPLE_COLUMNS,
    EXAMPLES,
    LATENTS,
    META,
    TEXTS,
    UNCONDITIONAL,
)
from ..config import Prepare, Train
from ..models.stable_diffusion import StableDiffusion
from ..prepare.encode.keys import teacher_request

SHARD = "zeros"


def write_planned_cache(
    folder: Path,
    base: StableDiffusion,
    config: Prepare,
    train: Train,
):
    """Write a cache of square images, with enough examples for a batch and the held-out ones."""
    # a training maps the examples instead of loading them, so their number hardly counts
    rows = max(16, 4 * train.validation_examples, train.batch_size)
    side = config.resolution // base.vae_scale_factor
    shape = (base.latent_channels, side, side)
    # random, because the shapes are all that matters
    text = base.random_text(1, base.text_tokens, torch.Generator())
    texts = {"embeddings": torch.zeros_like(text.context)}
    # only some families have it
    if text.pooled is not None:
        texts["pooled"] = torch.zeros_like(text.pooled)
    _write_tables(folder, rows)
    _write_shard(folder / LATENTS, {"latents": torch.zeros(rows, *shape)})
    _write_shard(folder / TEXTS, texts)
    _write_unconditional(folder / UNCONDITIONAL, text)
    if config.teacher_cache != "none":
        _write_shard(folder / ANSWERS, _teacher_predictions(rows, config, shape))
    metadata = {
        "base": base.name,
        "revision": config.revision,
        "base_hash": base.hash,
        "resolution": config.resolution,
        "shapes": {" ".join(map(str, shape)): rows},
        "shards": [{"name": SHARD, "rows": rows, "shape": shape, "answers": SHARD}],
        "texts": [{"name": SHARD, "rows": 1}],
        "negative": config.negative_prompt,
        "answers": teacher_request(config),
        "images": True,
        # empty: nobody checks a cache of zeros for damage
        "files": {},
    }
    (folder / META).write_text(json.dumps(metadata), "utf-8")


def _write_tables(folder: Path, rows: int):
    columns = {
        "id": [str(row) for row in range(rows)],
        "caption": [0] * rows,
        "key": [""] * rows,
        "shard": [0] * rows,
        "row": list(range(rows)),
        "prior": [False] * rows,
        "flipped": [False] * rows,
    }
    pyarrow.parquet.write_table(pyarrow.table(columns, schema=EXAMPLE_COLUMNS), folder / EXAMPLES)
    caption = {"caption": [""], "tokens": [0], "shard": [0], "row": [0]}
    pyarrow.parquet.write_table(pyarrow.table(caption, schema=CAPTION_COLUMNS), folder / CAPTIONS)


def _teacher_predictions(
    rows: int,
    config: Prepare,
    shape: tuple[int, ...],
) -> dict[str, torch.Tensor]:
    names = ["uncond", "cond"]
    if config.teacher_cache == "trajectories":
        names.append("x_t")
    # safetensors refuses tensors that share memory, so each name has zeros of its own
    tensors = {
        name: torch.zeros(rows, config.teacher_samples, *shape, dtype=torch.float16)
        for name in names
    }
    return tensors | {"t": torch.zeros(rows, config.teacher_samples, dtype=torch.int64)}


def _write_shard(folder: Path, tensors: dict[str, torch.Tensor]):
    # a real cache has several shards, and a training maps them all the same way
    folder.mkdir()
    save_file(tensors, folder / f"{SHARD}.safetensors")


def _write_unconditional(path: Path, text: Any):
    tensors = {}
    for name in ("empty", "negative"):
        tensors[name] = torch.zeros_like(text.context[0])
        if text.pooled is not None:
            tensors[f"{name}_pooled"] = torch.zeros_like(text.pooled[0])
    save_file(tensors, path)
