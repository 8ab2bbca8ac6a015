"""The formats of an export: how each is written, and how a stock pipeline loads it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from diffusers import DiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from safetensors import safe_open
from safetensors.torch import save_file
from transformers.utils import logging as transformers_logging

from ..models import StableDiffusion
from ..models.lora.metadata import LORA_FILE, METADATA_KEY
from ..models.sampling_recipe import holds_guidance
from ..run.run import Run
from .comfyui import comfyui_metadata, comfyui_weights
from .guiders import write_guiders
from .kohya import kohya_metadata, kohya_weights
from .one_pass import mark_guidance_as_embedded


@dataclass(frozen=True)
class Source:
    """The adapter of a run, on its base.

    pixels: side of its pictures
    facts: see `model_card.export_metadata`
    """

    run: Run
    base: StableDiffusion
    pixels: int
    facts: dict

    @property
    def kohya_file(self) -> str:
        """File name of the kohya export, by which A1111 and ComfyUI show an adapter."""
        return f"{self.run.name}.safetensors"

    @property
    def header(self) -> dict[str, str]:
        """The facts as an entry of a weight file's header."""
        return {METADATA_KEY: json.dumps(self.facts, sort_keys=True)}


def write_diffusers(part: Path, source: Source):
    """Write the run's own weights, with the facts in the header, and the guiders beside them."""
    with safe_open(source.run.adapter / LORA_FILE, "pt") as file:
        weights = {key: file.get_tensor(key) for key in file.keys()}
        metadata = file.metadata()
    # the run's header stays, because its lora_adapter_metadata holds the scales
    save_file(weights, part / LORA_FILE, metadata | source.header)
    write_guiders(part, source.facts)


def write_kohya(part: Path, source: Source):
    """Write one file, named after the run."""
    pipe = _load_with_adapter(source.base, source.run.adapter, LORA_FILE)
    denoiser = source.base.denoiser_of(pipe)
    if source.base.denoiser_part == "transformer":
        weights = comfyui_weights(denoiser)
        metadata = comfyui_metadata(source.facts["name"], source.pixels)
    else:
        weights = kohya_weights(denoiser, source.facts["train"].get("alpha"))
        width = denoiser.config.cross_attention_dim
        metadata = kohya_metadata(weights, width, source.base, source.facts["name"], source.pixels)
    metadata["modelspec.usage_hint"] = source.facts["usage"]
    save_file(weights, part / source.kohya_file, metadata | source.header)


def write_merged(part: Path, source: Source):
    """Write the whole pipeline, without the base's path on this machine."""
    pipe = _load_with_adapter(source.base, source.run.adapter, LORA_FILE)
    # the text encoders have no adapter
    pipe.fuse_lora(components=[source.base.denoiser_part])
    # otherwise the layers of PEFT would be saved, not the base's own
    pipe.unload_lora_weights()
    # a stock pipeline would guide a second time at its default scale
    if holds_guidance(source.facts) and source.base.can_embed_guidance:
        mark_guidance_as_embedded(pipe.unet)
    with _without_bars():
        pipe.save_pretrained(part, safe_serialization=True)


WRITERS = {"diffusers": write_diffusers, "kohya": write_kohya, "merged": write_merged}


def stock_pipeline(part: Path, to: str, source: Source) -> DiffusionPipeline:
    """Return the export as a program with nothing but diffusers loads it."""
    if to != "merged":
        file = LORA_FILE if to == "diffusers" else source.kohya_file
        return _load_with_adapter(source.base, part, file)
    pipeline_class = source.base.pipeline_class
    # local files only: the hub is not asked for a file that is missing
    options = {"use_safetensors": True, "local_files_only": True} | source.base.load_options
    with _without_bars():
        return pipeline_class.from_pretrained(part, **options)


@contextmanager
def _without_bars() -> Iterator[None]:
    """Disable the libraries' progress bars, which would stay in a notebook for ever."""
    libraries = (diffusers_logging, transformers_logging)
    enabled = [library for library in libraries if library.is_progress_bar_enabled()]
    for library in enabled:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in enabled:
            library.enable_progress_bar()


def _load_with_adapter(base: StableDiffusion, folder: Path, file: str) -> DiffusionPipeline:
    # a stock pipeline of its own, so that the sampler's stays as it is
    pipe = base.pipeline()
    pipe.load_lora_weights(str(folder), weight_name=file)
    return pipe
