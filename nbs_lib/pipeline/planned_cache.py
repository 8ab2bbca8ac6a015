"""A cache of zeros in the shapes that a preparation would give: what a training's memory is planned on before there is one."""

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


def write_planned_cache(folder: Path, base: StableDiffusion, config: Prepare, train: Train):
    """Write a cache as of square images, with enough examples for a batch and the held-out ones.

    The examples of a real cache are mapped and not held in memory, so their number hardly counts.
    """
    rows = max(16, 4 * train.validation_examples, train.batch_size)
    side = config.resolution // base.vae_scale_factor
    shape = (base.latent_channels, side, side)
    text = base.random_text(1, base.tokenizer().model_max_length, torch.Generator())
    _write_tables(folder, rows)
    _save(folder / LATENTS, {"latents": torch.zeros(rows, *shape)})
    pooled = {} if text.pooled is None else {"pooled": torch.zeros_like(text.pooled)}
    _save(folder / TEXTS, {"embeddings": torch.zeros_like(text.context)} | pooled)
    _save_away(folder / UNCONDITIONAL, text)
    if config.teacher_cache != "none":
        _save(folder / ANSWERS, _answers(rows, config, shape))
    meta = {
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
        "files": {},
    }
    (folder / META).write_text(json.dumps(meta), "utf-8")


def _write_tables(folder: Path, rows: int):
    columns = {
        "id": [str(row) for row in range(rows)],
        "caption": [0] * rows,
        "key": [""] * rows,
        "shard": [0] * rows,
    }
    columns |= {"row": list(range(rows)), "prior": [False] * rows, "flipped": [False] * rows}
    pyarrow.parquet.write_table(pyarrow.table(columns, schema=EXAMPLE_COLUMNS), folder / EXAMPLES)
    caption = {"caption": [""], "tokens": [0], "shard": [0], "row": [0]}
    pyarrow.parquet.write_table(pyarrow.table(caption, schema=CAPTION_COLUMNS), folder / CAPTIONS)


def _answers(rows: int, config: Prepare, shape: tuple[int, ...]) -> dict[str, torch.Tensor]:
    answer = torch.zeros(rows, config.teacher_samples, *shape, dtype=torch.float16)
    told = {
        "t": torch.zeros(rows, config.teacher_samples, dtype=torch.int64),
        "uncond": answer,
        "cond": answer.clone(),
    }
    return told | ({"x_t": answer.clone()} if config.teacher_cache == "trajectories" else {})


def _save(folder: Path, tensors: dict[str, torch.Tensor]):
    folder.mkdir()
    save_file(tensors, folder / f"{SHARD}.safetensors")


def _save_away(path: Path, text: Any):
    away = {name: torch.zeros_like(text.context[0]) for name in ("empty", "negative")}
    if text.pooled is not None:
        away |= {
            f"{name}_pooled": torch.zeros_like(text.pooled[0]) for name in ("empty", "negative")
        }
    save_file(away, path)
