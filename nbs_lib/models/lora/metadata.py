"""The metadata of an adapter's file: how it was trained, and how it is to be sampled."""

from pathlib import Path
from typing import Any

from ...config.contenders import SCHEDULERS, TIMESTEP_SPACINGS
from ..checks.headers import FileError, parse_settings, read_header, read_settings
from ..loading import FAMILIES
from ..origin import plain_license
from ..sampling_recipe import RECIPE_SENTENCES
from .checks import MAX_ALPHA, AdapterError, is_number_between
from .dial import is_dial

LORA_FILE = "pytorch_lora_weights.safetensors"  # diffusers' name
METADATA_KEY = "onepass"  # in the file's metadata
# What the stock pipeline is loaded with: nothing else, or that a family's optional parts are None.
BASE_OPTIONS = ({}, *(dict.fromkeys(family.optional_parts) for family in FAMILIES))
MAX_STEPS = 10_000_000  # of a training
METADATA_FILE = "onepass.json"  # the same metadata beside a whole model that was trained


def load_metadata(folder: Path) -> dict[str, Any]:
    """Return the metadata of an adapter or of a whole model that was trained.

    Errors: FileNotFoundError without one; AdapterError if it is damaged or not of Onepass
    """
    path = folder / LORA_FILE
    model_file = folder / METADATA_FILE
    try:
        # a whole model has no LoRA file
        if model_file.is_file():
            return checked_metadata(read_settings(model_file), model_file)
        if not path.is_file():
            raise FileNotFoundError(
                f"{folder} holds no {LORA_FILE}; train an adapter first (notebooks/2_train.ipynb)"
            )
        metadata = read_header(path).metadata
    except FileError as failure:
        raise AdapterError(folder, failure) from None
    # without its settings it is not known how it must be sampled
    if METADATA_KEY not in metadata:
        raise AdapterError(
            path, f"it has no {METADATA_KEY!r} metadata, so it was not trained by Onepass"
        )
    return parse_metadata(metadata[METADATA_KEY], path)


def checked_metadata(metadata: Any, path: Path) -> dict[str, Any]:
    """Return the metadata of an adapter or a whole model unchanged if Onepass may have written it.

    Errors: AdapterError
    """
    sampling = metadata.get("sampling", {})
    train = metadata.get("train", {})
    license_fields = metadata.get("base_license", {})
    checks = {
        "base_hash": isinstance(metadata.get("base_hash"), str),
        "w_train": is_number_between(metadata.get("w_train"), 0, 1000),
        "objective": metadata.get("objective", "guidance") in tuple(RECIPE_SENTENCES),
        "dial": is_dial(metadata.get("dial", [])),
        "resolution": _is_count(metadata.get("resolution"), 1 << 16),
        "weights_step": _is_count(metadata.get("weights_step"), MAX_STEPS),
        "sampling": isinstance(sampling, dict)
        and is_number_between(sampling.get("guidance_scale", 1), 0, 1000)
        and sampling.get("scheduler", SCHEDULERS[0]) in SCHEDULERS
        and sampling.get("timestep_spacing", "") in TIMESTEP_SPACINGS
        and _is_count(sampling.get("steps"), 1000),
        "train": isinstance(train, dict)
        and (train.get("alpha") is None or is_number_between(train["alpha"], 1e-6, MAX_ALPHA))
        and _are_counts(train.get("few_steps", [])),
        "base_options": metadata.get("base_options", {}) in BASE_OPTIONS,
        "base_license": license_fields in ({}, plain_license(license_fields)),
    }
    for name in ("base", "base_origin", "negative"):
        checks[name] = isinstance(metadata.get(name, ""), str)
    for name, is_right in checks.items():
        if not is_right:
            value = metadata.get(name)
            raise AdapterError(path, f"its {name} is {value!r:.60}, which Onepass does not record")
    return metadata


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and all(_is_count(value, 1000) for value in values)


def _is_count(value: Any, highest: int) -> bool:
    return value is None or (type(value) is int and 1 <= value <= highest)


def parse_metadata(text: str | bytes, path: Path) -> dict[str, Any]:
    """Return the metadata in a text. Errors: AdapterError."""
    try:
        return checked_metadata(parse_settings(text, "its record"), path)
    except FileError as failure:
        raise AdapterError(path, failure) from None
