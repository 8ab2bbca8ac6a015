"""An adapter's file and the record beside its weights, read without trust: both may come from anywhere.

What stands here is checked before peft sees any of it. peft takes a text in `target_modules` for a regular expression, other
settings for modules to import, and lets layers that it does not know go without a word.
"""

import re
from collections.abc import Iterable
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from peft import LoraConfig
from peft.utils.other import get_pattern_key
from safetensors import safe_open

from ..config.contenders import SCHEDULERS
from .checks.headers import FileError, parse_settings, read_header
from .origin import plain_license
from .sampling_recipe import RECIPE_SENTENCES

MAX_ABS_WEIGHT = 1e4
"""Of an adapter's weights. Trained ones stay below 10, and two of this size, at any rank, overflow no product in fp32."""
RANKS = (1, 4096)
KEY = re.compile(
    r"unet\.(?P<layer>[\w.]+)\.(?P<kind>lora_A\.weight|lora_B\.weight|lora_magnitude_vector)"
)
PLAIN_SETTINGS = re.compile(r"\w+(\.\w+)*")
"""A layer's name or the end of one, with nothing that a regular expression would read in another way."""
OWN_METADATA = (
    "r",
    "lora_alpha",
    "target_modules",
    "rank_pattern",
    "alpha_pattern",
    "lora_dropout",
    "use_dora",
    "use_rslora",
)
"""The settings that an adapter may have of its own. Every other one has to be as peft's default is."""
FREE_TEXT = ("peft_type", "peft_version", "base_model_name_or_path", "revision")
"""Settings that name where an adapter came from, and change nothing."""
INITIAL = (True, False, "gaussian")
"""Ways to draw weights before those of the file replace them. Others of peft's decompose the base's weights, for minutes."""
Layers = dict[str, torch.Size]
"""The layers of a UNet that an adapter may lie on, each with the shape of its weight."""


class AdapterError(ValueError):
    """An adapter that cannot be used: which, why, and what to do."""

    def __init__(self, path: Path, why: object):
        super().__init__(
            f"adapter {path}: {why}; train it again, or fetch it again where it came from"
        )


def lora_targets_of(unet: torch.nn.Module) -> Layers:
    """Return all linear and convolutional layers by their names in a UNet without adapters."""
    kinds = torch.nn.Linear | torch.nn.Conv2d
    return {
        name: each.weight.shape for name, each in unet.named_modules() if isinstance(each, kinds)
    }


def check_adapter(path: Path, layers: Layers):
    """Check that a file holds an adapter for a UNet of these layers, and nothing else.

    Errors: AdapterError where weights are missing, unexpected, misshapen, not numbers or huge, or settings do not fit them.
    """
    try:
        header = read_header(path)
        ranks, dora = _ranks_of(header.weights, layers)
        if (text := header.metadata.get(LORA_ADAPTER_METADATA_KEY)) is not None:
            settings = parse_settings(text, LORA_ADAPTER_METADATA_KEY)
            own = {
                name.removeprefix("unet."): value
                for name, value in settings.items()
                if name.startswith("unet.")
            }
            _check_settings(own, ranks, dora, layers)
        with safe_open(path, "pt") as opened:
            for name in header.weights:
                _check_values(name, opened.get_tensor(name))
    except FileError as failure:
        raise AdapterError(path, failure) from None


def _ranks_of(weights: dict[str, tuple], layers: Layers) -> tuple[dict[str, int], bool]:
    """Return the rank on each layer, and whether the adapter is a DoRA, by the names and shapes of all weights."""
    shapes: dict[str, dict[str, tuple]] = {}
    for name, (shape, kind) in weights.items():
        key = KEY.fullmatch(name)
        if not key or key["layer"] not in layers:
            raise FileError(f"it holds {name!r:.150}, and the base's UNet has no such layer")
        if kind not in ("F32", "F16", "BF16"):
            raise FileError(f"{name} is of type {kind}, allowed are F32, F16 and BF16")
        shapes.setdefault(key["layer"], {})[key["kind"]] = shape
    dora = any("lora_magnitude_vector" in each for each in shapes.values())
    if not shapes:
        raise FileError("it holds no weights")
    return {layer: _rank(layer, held, layers[layer], dora) for layer, held in shapes.items()}, dora


def _rank(layer: str, held: dict[str, tuple], shape: torch.Size, dora: bool) -> int:
    rank = (held.get("lora_A.weight") or (0,))[0]
    if not RANKS[0] <= rank <= RANKS[1]:
        raise FileError(f"{layer} has rank {rank}, allowed is {RANKS[0]} to {RANKS[1]}")
    ones = (1,) * (len(shape) - 2)
    wanted = {"lora_A.weight": (rank, *shape[1:]), "lora_B.weight": (shape[0], rank, *ones)}
    if dora:
        wanted["lora_magnitude_vector"] = (1, shape[0], *ones) if ones else (shape[0],)
    for kind in sorted(set(wanted) | set(held)):
        if held.get(kind) != wanted.get(kind):
            given, right = (
                list(each[kind]) if kind in each else "not there" for each in (held, wanted)
            )
            raise FileError(f"{layer}.{kind} is {given}, the base's layer needs {right}")
    return rank


def _check_settings(settings: dict[str, Any], ranks: dict[str, int], dora: bool, layers: Layers):
    """Check what peft is to be told of the adapter against its weights, and against what any adapter may ask for."""
    defaults = LoraConfig().to_dict()
    for name, value in settings.items():
        fine = (
            name in OWN_METADATA
            or name in defaults
            and (value == defaults[name] or value is None and not defaults[name])
        )
        fine |= (
            name in FREE_TEXT
            and isinstance(value, str)
            or name == "init_lora_weights"
            and value in INITIAL
        )
        if not fine:
            raise FileError(f"its setting {name!r:.60} is {value!r:.60}, which is not supported")
    targets, patterns = (
        settings.get("target_modules"),
        [settings.get(f"{each}_pattern", {}) for each in ("rank", "alpha")],
    )
    if not isinstance(targets, list) or len(targets) > len(layers) or not _all_plain(targets):
        raise FileError("its target_modules are no list of plain layer names")
    for pattern in patterns:
        if not isinstance(pattern, dict) or len(pattern) > len(layers) or not _all_plain(pattern):
            raise FileError(
                "its rank_pattern and alpha_pattern do not give numbers to plain layer names"
            )
    if (
        settings.get("use_dora", False) is not dora
        or type(settings.get("use_rslora", False)) is not bool
    ):
        raise FileError("its use_dora and use_rslora do not fit its weights")
    for name, value, low, high in [
        ("r", settings.get("r"), 1, 1e4),
        ("lora_alpha", settings.get("lora_alpha"), -1e4, 1e4),
        ("lora_dropout", settings.get("lora_dropout", 0), 0, 1),
        *(("alpha_pattern", value, -1e4, 1e4) for value in patterns[1].values()),
    ]:  # fmt: skip
        if not is_number_between(value, low, high):
            raise FileError(
                f"its {name} is {value!r:.60}, allowed is a number from {low:g} to {high:g}"
            )
    covered = {
        layer
        for layer in layers
        if any(layer == each or layer.endswith(f".{each}") for each in targets)
    }
    if covered != set(ranks):
        raise FileError(
            f"its target_modules and its weights differ, for example in {min(covered ^ set(ranks))}"
        )
    for layer, rank in ranks.items():
        said = patterns[0].get(get_pattern_key(patterns[0].keys(), layer), settings["r"])
        if type(said) is not int or said != rank:
            raise FileError(f"{layer} has rank {rank}, its settings say {said!r:.60}")


def _check_values(name: str, weight: torch.Tensor):
    low, high = weight.float().aminmax()
    if not (low.isfinite() and high.isfinite()):
        raise FileError(f"it holds weights that are not numbers ({name})")
    if (largest := max(-float(low), float(high))) > MAX_ABS_WEIGHT:
        raise FileError(
            f"{name} reaches {largest:.3g}, allowed is {MAX_ABS_WEIGHT:g}; its training diverged, or it is damaged"
        )


def _all_plain(names: Iterable[Any]) -> bool:
    return all(
        isinstance(name, str) and len(name) < 200 and PLAIN_SETTINGS.fullmatch(name)
        for name in names
    )


def is_number_between(value: Any, low: float, high: float) -> bool:
    """Whether a value is a finite number from `low` to `high`; a whole one may be of any length."""
    return type(value) in (int, float) and low <= value <= high and isfinite(value)


def _is_count(value: Any, most: int) -> bool:
    """Whether a value is a whole number from 1 to `most`, or nothing."""
    return value is None or type(value) is int and 1 <= value <= most


def checked_metadata(facts: Any, path: Path) -> dict[str, Any]:
    """Return what is recorded with an adapter or a whole model, as it is, if its values are such as Onepass records.

    Errors: AdapterError.
    """
    sampling, train = facts.get("sampling", {}), facts.get("train", {})
    right = {
        "base_hash": isinstance(facts.get("base_hash"), str),
        "w_train": is_number_between(facts.get("w_train"), 0, 1000),
        "objective": facts.get("objective", "guidance") in tuple(RECIPE_SENTENCES),
        "resolution": facts.get("resolution") is None
        or type(facts["resolution"]) is int
        and 1 <= facts["resolution"] <= 1 << 16,
        "sampling": isinstance(sampling, dict)
        and is_number_between(sampling.get("guidance_scale", 1), 0, 1000)
        and sampling.get("scheduler", SCHEDULERS[0]) in SCHEDULERS
        and _is_count(sampling.get("steps"), 1000),
        "train": isinstance(train, dict)
        and (train.get("alpha") is None or is_number_between(train["alpha"], 1e-6, 1e4)),
    }
    right["base_license"] = facts.get("base_license", {}) in (
        {},
        plain_license(facts.get("base_license")),
    )
    right |= {
        name: isinstance(facts.get(name, ""), str) for name in ("base", "base_origin", "negative")
    }
    if wrong := [name for name, fine in right.items() if not fine]:
        raise AdapterError(
            path, f"its {wrong[0]} is {facts.get(wrong[0])!r:.60}, which Onepass does not record"
        )
    return facts


def parse_metadata(text: str | bytes, path: Path) -> dict[str, Any]:
    """Return the record in a text. Errors: AdapterError."""
    try:
        return checked_metadata(parse_settings(text, "its record"), path)
    except FileError as failure:
        raise AdapterError(path, failure) from None
