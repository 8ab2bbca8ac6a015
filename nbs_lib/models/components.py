"""The components of a base, each a folder in diffusers' layout: its files, and how it is loaded."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from .checks.headers import first_line, read_settings
from .checks.weight_shapes import config_of, is_text_encoder

INDEX = "model_index.json"  # the stock pipeline's own settings
# The components that a base may have, and their files of settings.
CONFIGS = {
    "unet": "config.json",
    "transformer": "config.json",
    "vae": "config.json",
    "text_encoder": "config.json",
    "text_encoder_2": "config.json",
    "text_encoder_3": "config.json",
    "tokenizer": "tokenizer_config.json",
    "tokenizer_2": "tokenizer_config.json",
    "tokenizer_3": "tokenizer_config.json",
    "scheduler": "scheduler_config.json",
}
# The components with weights, and the stems of their files.
WEIGHTS = {
    "unet": "diffusion_pytorch_model",
    "transformer": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
    "text_encoder_2": "model",
    "text_encoder_3": "model",
}


class BaseError(ValueError):
    """A base that cannot be used: its name, the problem, what to do."""


def unusable_base(name: str, reason: str) -> BaseError:
    """Return the error for a base that is complete but of an unsupported kind."""
    return BaseError(f"base {name!r} cannot be used: {reason}")


def weight_files(folder: Path, part: str) -> list[Path]:
    """Return the files of a component's weights: one file, or an index and its shards, or none.

    fp16 files are returned only if there are no others.
    """
    stem = WEIGHTS[part]
    # fp32 first: training starts from the more exact weights
    for variant in ("", ".fp16"):
        single = folder / part / f"{stem}{variant}.safetensors"
        index = folder / part / f"{stem}.safetensors.index{variant}.json"
        if single.is_file():
            return [single]
        # a large model's weights are in several files, which the index names
        if index.is_file():
            shards = (folder / part).glob(f"{stem}{variant}-*.safetensors")
            return [index, *sorted(shards)]
    return []


def component_files(folder: Path, part: str) -> set[Path]:
    """Return the files that are loaded for a component, without others beside them."""
    files = {folder / part / CONFIGS[part]}
    if part in WEIGHTS:
        files |= set(weight_files(folder, part))
    elif part.startswith("tokenizer"):
        # tokenizers of different versions have different files, and all of them count
        files |= {path for path in (folder / part).iterdir() if path.suffix in (".json", ".txt")}
    return files


def missing_files(folder: Path, parts: Iterable[str]) -> list[str]:
    """Return the files that a base lacks of these components, as paths in its folder."""
    missing = []
    for part in parts:
        # plain files only: a library would wait without end for a pipe
        files = {path.name for path in (folder / part).glob("*") if path.is_file()}
        if CONFIGS[part] not in files:
            missing.append(f"{part}/{CONFIGS[part]}")
        if part in WEIGHTS and not weight_files(folder, part):
            missing.append(f"{part}/{WEIGHTS[part]}.safetensors")
        has_vocabulary = "tokenizer.json" in files or {"vocab.json", "merges.txt"} <= files
        if part.startswith("tokenizer") and not has_vocabulary:
            missing.append(f"{part}/tokenizer.json, or vocab.json and merges.txt beside it")
    return missing


def load_component(cls: type, name: str, folder: Path, part: str, dtype: torch.dtype) -> Any:
    """Return a component with weights as a frozen model of class `cls`.

    name: of the base, for errors

    Errors: BaseError if it does not load
    """
    options: dict[str, Any] = {}
    if is_text_encoder(cls):
        # checked settings, because those in the file may name code to fetch
        options["config"] = config_of(cls, read_settings(folder / part / CONFIGS[part]))
    if ".fp16." in weight_files(folder, part)[0].name:
        # diffusers and transformers find such files only by this option
        options["variant"] = "fp16"
    try:
        with no_progress_bar():
            model = cls.from_pretrained(
                folder / part,
                torch_dtype=dtype,
                use_safetensors=True,
                local_files_only=True,
                **options,
            )
    except Exception as failure:  # the libraries check little of what they read
        raise BaseError(
            f"base {name!r}: its {part} does not load ({first_line(failure)}); fetch {part}/ again"
        ) from failure
    broken = weights_not_finite(model)
    if broken:
        raise BaseError(
            f"base {name!r}: its {part} has weights that are no numbers ({broken}); "
            f"fetch {part}/ again"
        )
    # frozen: only a LoRA, or an explicitly unfrozen denoiser, is trained
    return model.requires_grad_(False).eval()


def weights_not_finite(model: torch.nn.Module) -> str:
    """Return the name of a weight that holds NaN or an infinity; "" if there is none."""
    for name, weight in model.named_parameters():
        # aminmax finds both in one pass without a copy: 0.1 s for a GiB
        if weight.numel() and not torch.stack(weight.detach().aminmax()).isfinite().all():
            return name
    return ""


@contextmanager
def no_progress_bar() -> Iterator[None]:
    """Switch off transformers' progress bar.

    It would stay in the notebooks for good, although weights load in a moment.
    """
    was_enabled = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            transformers_logging.enable_progress_bar()
