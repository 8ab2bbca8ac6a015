"""The parts of a base, folders of their own in diffusers' layout: which files one has, and how it is loaded."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as bars

from .checks.headers import first_line, read_settings
from .checks.weight_shapes import config_of, is_clip

INDEX = "model_index.json"
"""What the stock pipeline says of itself, beside the parts."""
CONFIGS = {
    "unet": "config.json",
    "vae": "config.json",
    "text_encoder": "config.json",
    "text_encoder_2": "config.json",
    "tokenizer": "tokenizer_config.json",
    "tokenizer_2": "tokenizer_config.json",
    "scheduler": "scheduler_config.json",
}
"""Every part that a base may have, and its file of settings."""
WEIGHTS = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
    "text_encoder_2": "model",
}
"""The parts that have weights, and how their files are called."""


class BaseError(ValueError):
    """A base that cannot be used: what was given, what is missing, what to do."""


def weight_files(folder: Path, part: str) -> list[Path]:
    """The files of a part's weights, whole or in shards, fp16 ones only where there are no others; [] where none are."""
    for ending in ("", ".fp16"):
        stem = WEIGHTS[part] + ending
        whole, index = (
            folder / part / f"{stem}.safetensors",
            folder / part / f"{WEIGHTS[part]}.safetensors.index{ending}.json",
        )
        if whole.is_file():
            return [whole]
        if index.is_file():
            shards = f"{WEIGHTS[part]}{ending}-*.safetensors"
            return [index, *sorted((folder / part).glob(shards))]
    return []


def component_files(folder: Path, part: str) -> set[Path]:
    """The files that are loaded for a part, and no others that lie beside them."""
    files = {folder / part / CONFIGS[part]}
    if part in WEIGHTS:
        files |= set(weight_files(folder, part))
    elif part.startswith("tokenizer"):
        files |= {path for path in (folder / part).iterdir() if path.suffix in (".json", ".txt")}
    return files


def missing_files(folder: Path, parts: Iterable[str]) -> list[str]:
    """What a base's folder lacks of these parts, as paths in it; [] for a whole base."""
    missing = []
    for part in parts:
        # a pipe would be waited for, and no library would end
        there = {path.name for path in (folder / part).glob("*") if path.is_file()}
        if CONFIGS[part] not in there:
            missing.append(f"{part}/{CONFIGS[part]}")
        if part in WEIGHTS and not weight_files(folder, part):
            missing.append(f"{part}/{WEIGHTS[part]}.safetensors")
        if part.startswith("tokenizer") and not (
            "tokenizer.json" in there or {"vocab.json", "merges.txt"} <= there
        ):
            missing.append(f"{part}/tokenizer.json, or vocab.json and merges.txt beside it")
    return missing


def load_component(cls: type, name: str, folder: Path, part: str, dtype: torch.dtype) -> Any:
    """A part with weights as a frozen model of class `cls`. name: the base's.

    Errors: BaseError where it does not load.
    """
    variant = "fp16" if ".fp16." in weight_files(folder, part)[0].name else None
    own = (
        {"config": config_of(read_settings(folder / part / CONFIGS[part]))} if is_clip(cls) else {}
    )
    try:
        with no_progress_bar():
            model = cls.from_pretrained(
                folder / part,
                torch_dtype=dtype,
                use_safetensors=True,
                variant=variant,
                local_files_only=True,
                **own,
            )
    except Exception as failure:  # the libraries check little of what they read
        raise BaseError(
            f"base {name!r}: its {part} does not load ({first_line(failure)}); fetch {part}/ again"
        ) from failure
    if broken := weights_not_finite(model):
        raise BaseError(
            f"base {name!r}: its {part} has weights that are no numbers ({broken}); fetch {part}/ again"
        )
    return model.requires_grad_(False).eval()


def weights_not_finite(model: torch.nn.Module) -> str:
    """Return the name of a weight that holds NaN or an infinity, or an empty text.

    The smallest and the largest value tell both in one pass without a copy: 0.1 s for a GiB.
    """
    for name, weight in model.named_parameters():
        if weight.numel() and not all(each.isfinite() for each in weight.detach().aminmax()):
            return name
    return ""


@contextmanager
def no_progress_bar() -> Iterator[None]:
    """Without transformers' bar for a while: it would stand in the notebooks for good, and weights load in a moment."""
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()
