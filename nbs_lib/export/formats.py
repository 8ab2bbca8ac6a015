"""The forms of an export: how each is written, and how a stock pipeline loads it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline
from diffusers.utils import logging as diffusers_bars
from safetensors import safe_open
from safetensors.torch import save_file
from transformers.utils import logging as transformers_bars

from ..models import StableDiffusion
from ..models.lora import LORA_FILE, METADATA_KEY
from ..models.sampling_recipe import holds_guidance
from ..run.run import Run
from .kohya import kohya_metadata, kohya_weights
from .one_pass import mark_guidance_as_embedded


@dataclass(frozen=True)
class Source:
    """What is exported: the adapter of a run, on its base; pixels: a side of its pictures; facts: as of `card.told`."""

    run: Run
    base: StableDiffusion
    pixels: int
    facts: dict[str, Any]

    @property
    def kohya_file(self) -> str:
        """A1111 and ComfyUI show an adapter by its file's name."""
        return f"{self.run.name}.safetensors"


def write_diffusers(part: Path, source: Source):
    """The run's own weights, with all that is told of them in the header."""
    with safe_open(source.run.adapter / LORA_FILE, "pt") as opened:
        weights, metadata = (
            {key: opened.get_tensor(key) for key in opened.keys()},
            opened.metadata(),
        )
    save_file(
        weights,
        part / LORA_FILE,
        metadata | {METADATA_KEY: json.dumps(source.facts, sort_keys=True)},
    )


def write_kohya(part: Path, source: Source):
    """One file, by the run's name."""
    unet, facts = _with_adapter(source.base, source.run.adapter, LORA_FILE).unet, source.facts
    weights = kohya_weights(unet, facts["train"].get("alpha"))
    metadata = kohya_metadata(
        weights, unet.config.cross_attention_dim, source.base, facts["name"], source.pixels
    )
    metadata |= {
        "modelspec.usage_hint": facts["usage"],
        METADATA_KEY: json.dumps(facts, sort_keys=True),
    }
    save_file(weights, part / source.kohya_file, metadata)


def write_merged(part: Path, source: Source):
    """The whole pipeline. Where its base lay on this machine is left out of it."""
    pipe = _with_adapter(source.base, source.run.adapter, LORA_FILE)
    pipe.fuse_lora(components=["unet"])
    pipe.unload_lora_weights()
    if holds_guidance(source.facts):
        mark_guidance_as_embedded(pipe.unet)
    with _without_bars():
        pipe.save_pretrained(part, safe_serialization=True)


WRITERS = {"diffusers": write_diffusers, "kohya": write_kohya, "merged": write_merged}


def stock_pipeline(part: Path, to: str, source: Source) -> DiffusionPipeline:
    """The export as a program with nothing but diffusers loads it."""
    if to != "merged":
        return _with_adapter(
            source.base, part, LORA_FILE if to == "diffusers" else source.kohya_file
        )
    with _without_bars():
        return source.base.pipeline_class.from_pretrained(
            part, use_safetensors=True, local_files_only=True
        )


@contextmanager
def _without_bars() -> Iterator[None]:
    """No progress bars of the libraries for a while: they would stand in a notebook for good."""
    barred = [
        library
        for library in (diffusers_bars, transformers_bars)
        if library.is_progress_bar_enabled()
    ]
    for library in barred:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in barred:
            library.enable_progress_bar()


def _with_adapter(base: StableDiffusion, folder: Path, file: str) -> DiffusionPipeline:
    pipe = base.pipeline()
    pipe.load_lora_weights(str(folder), weight_name=file)
    return pipe
