"""Checks of an adapter's file, which may come from anywhere.

Everything is checked before peft reads it. peft takes a text in `target_modules` for a regular
expression and other settings for modules to import, and skips unknown layers silently.
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

from ..checks.headers import FileError, Weights, parse_settings, read_header

# Trained weights stay below 10. Products of two weights of this size, at any rank, fit in fp32.
MAX_ABS_WEIGHT = 1e4
MAX_RANK = 4096
MAX_ALPHA = 1e4
TYPES = ("F32", "F16", "BF16")
WEIGHT_NAME = re.compile(
    r"(?P<component>\w+)\.(?P<layer>[\w.]+)\.(?P<kind>lora_A\.weight|lora_B\.weight|lora_magnitude_vector)"
)
MAGNITUDE = "lora_magnitude_vector"  # of DoRA
# A layer's name or the end of one, which is the same as a regular expression.
PLAIN_NAME = re.compile(r"\w+(\.\w+)*")
MAX_NAME_LENGTH = 200
# The settings that an adapter may choose. All others must have peft's defaults.
FREE_SETTINGS = (
    "r",
    "lora_alpha",
    "target_modules",
    "rank_pattern",
    "alpha_pattern",
    "lora_dropout",
    "use_dora",
    "use_rslora",
)
# Texts that name an adapter's origin and change nothing.
FREE_TEXT = ("peft_type", "peft_version", "base_model_name_or_path", "revision")
# Draws of weights before the file replaces them. peft's others decompose the base for minutes.
INITIAL = (True, False, "gaussian")
Layers = dict[str, torch.Size]  # the shape of the weight of each layer that may have an adapter


class AdapterError(ValueError):
    """An adapter that cannot be used: its path, the problem, what to do."""

    def __init__(self, path: Path, problem: object):
        super().__init__(
            f"adapter {path}: {problem}; train it again, or fetch it again where it came from"
        )


def lora_targets_of(denoiser: torch.nn.Module) -> Layers:
    """Return all linear and convolutional layers of a denoiser without adapters, by name."""
    return {
        name: module.weight.shape
        for name, module in denoiser.named_modules()
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)
    }


def check_adapter(path: Path, layers: Layers, component: str = "unet"):
    """Check that a file holds an adapter for a denoiser with these layers, and nothing else.

    component: the denoiser's name in its pipeline, `unet` or `transformer`

    Errors: AdapterError if weights are missing, unexpected, misshapen, not numbers or huge, or if
    settings do not fit them
    """
    try:
        header = read_header(path)
        ranks, is_dora = _ranks(header.weights, layers, component)
        text = header.metadata.get(LORA_ADAPTER_METADATA_KEY)
        # a file without settings is read by its weights alone
        if text is not None:
            settings = {
                name.removeprefix(f"{component}."): value
                for name, value in parse_settings(text, LORA_ADAPTER_METADATA_KEY).items()
                if name.startswith(f"{component}.")
            }
            _check_settings(settings, layers)
            _check_settings_fit(settings, ranks, is_dora, layers)
        # one weight at a time, so that a large file needs little memory
        with safe_open(path, "pt") as opened:
            for name in header.weights:
                _check_values(name, opened.get_tensor(name))
    except FileError as failure:
        raise AdapterError(path, failure) from None


def _ranks(weights: Weights, layers: Layers, component: str) -> tuple[dict[str, int], bool]:
    """Return the rank on each layer, and True for a DoRA, by names and shapes of the weights."""
    shapes: dict[str, dict[str, tuple]] = {}
    for name, (shape, kind) in weights.items():
        key = WEIGHT_NAME.fullmatch(name)
        if not key or key["component"] != component or key["layer"] not in layers:
            raise FileError(f"it holds {name!r:.150}, and the base's denoiser has no such layer")
        if kind not in TYPES:
            raise FileError(f"{name} is of type {kind}, allowed are F32, F16 and BF16")
        shapes.setdefault(key["layer"], {})[key["kind"]] = shape
    if not shapes:
        raise FileError("it holds no weights")
    # on one layer is on all: others are then reported as missing
    is_dora = any(MAGNITUDE in stored for stored in shapes.values())
    ranks = {
        layer: _rank(layer, stored, layers[layer], is_dora) for layer, stored in shapes.items()
    }
    return ranks, is_dora


def _rank(layer: str, stored: dict[str, tuple], shape: torch.Size, is_dora: bool) -> int:
    """Return the rank on a layer.

    stored: shapes in the file by kind
    shape: of the layer's weight
    """
    rank = (stored.get("lora_A.weight") or (0,))[0]
    if not 1 <= rank <= MAX_RANK:
        raise FileError(f"{layer} has rank {rank}, allowed is 1 to {MAX_RANK}")
    # B and the magnitudes of a convolution have a kernel of 1 × 1
    ones = (1,) * (len(shape) - 2)
    expected = {"lora_A.weight": (rank, *shape[1:]), "lora_B.weight": (shape[0], rank, *ones)}
    if is_dora:
        expected[MAGNITUDE] = (1, shape[0], *ones) if ones else (shape[0],)
    for kind in sorted(expected.keys() | stored.keys()):
        if stored.get(kind) != expected.get(kind):
            raise FileError(
                f"{layer}.{kind} is {_shape_text(stored, kind)}, "
                f"the base's layer needs {_shape_text(expected, kind)}"
            )
    return rank


def _shape_text(shapes: dict[str, tuple], kind: str) -> str:
    return str(list(shapes[kind])) if kind in shapes else "not there"


def _check_settings(settings: dict[str, Any], layers: Layers):
    """Check that settings ask peft for nothing that an adapter may not have."""
    # of the installed version, which is the one that will read the settings
    defaults = LoraConfig().to_dict()
    for name, value in settings.items():
        if not _is_supported(name, value, defaults):
            raise FileError(f"its setting {name!r:.60} is {value!r:.60}, which is not supported")
    targets = settings.get("target_modules")
    if not isinstance(targets, list) or not _are_plain(targets, layers):
        raise FileError("its target_modules are no list of plain layer names")
    alphas = settings.get("alpha_pattern", {})
    for pattern in (settings.get("rank_pattern", {}), alphas):
        if not isinstance(pattern, dict) or not _are_plain(pattern, layers):
            raise FileError(
                "its rank_pattern and alpha_pattern do not give numbers to plain layer names"
            )
    _check_number("r", settings.get("r"), 1, 1e4)
    _check_number("lora_alpha", settings.get("lora_alpha"), -MAX_ALPHA, MAX_ALPHA)
    _check_number("lora_dropout", settings.get("lora_dropout", 0), 0, 1)
    for alpha in alphas.values():
        _check_number("alpha_pattern", alpha, -MAX_ALPHA, MAX_ALPHA)


def _is_supported(name: str, value: Any, defaults: dict[str, Any]) -> bool:
    if name in FREE_SETTINGS:
        return True
    if name in FREE_TEXT and isinstance(value, str):
        return True
    if name == "init_lora_weights" and value in INITIAL:
        return True
    if name not in defaults:
        return False
    # other versions write None for an empty default
    return value == defaults[name] or (value is None and not defaults[name])


def _are_plain(names: Iterable[Any], layers: Layers) -> bool:
    """Return True for names of layers, or ends of such names, and no more than there are layers."""
    names = list(names)
    return len(names) <= len(layers) and all(
        isinstance(name, str) and len(name) < MAX_NAME_LENGTH and PLAIN_NAME.fullmatch(name)
        for name in names
    )


def _check_number(name: str, value: Any, low: float, high: float):
    if not is_number_between(value, low, high):
        raise FileError(
            f"its {name} is {value!r:.60}, allowed is a number from {low:g} to {high:g}"
        )


def _check_settings_fit(
    settings: dict[str, Any], ranks: dict[str, int], is_dora: bool, layers: Layers
):
    """Check that settings agree with the weights: kind of adapter, layers, ranks."""
    rslora = settings.get("use_rslora", False)
    if settings.get("use_dora", False) is not is_dora or type(rslora) is not bool:
        raise FileError("its use_dora and use_rslora do not fit its weights")
    # peft's rule: a target is a full name or its end after a dot
    endings = tuple(f".{target}" for target in settings["target_modules"])
    targeted = {layer for layer in layers if f".{layer}".endswith(endings)}
    different = targeted ^ ranks.keys()
    if different:
        raise FileError(
            f"its target_modules and its weights differ, for example in {min(different)}"
        )
    pattern = settings.get("rank_pattern", {})
    for layer, rank in ranks.items():
        # peft's own rule for which entry of the pattern a layer gets
        set_rank = pattern.get(get_pattern_key(pattern.keys(), layer), settings["r"])
        if type(set_rank) is not int or set_rank != rank:
            raise FileError(f"{layer} has rank {rank}, its settings say {set_rank!r:.60}")


def _check_values(name: str, weight: torch.Tensor):
    # both bounds in one pass; NaN spreads to them
    low, high = weight.float().aminmax()
    if not (low.isfinite() and high.isfinite()):
        raise FileError(f"it holds weights that are not numbers ({name})")
    largest = max(-float(low), float(high))
    if largest > MAX_ABS_WEIGHT:
        raise FileError(
            f"{name} reaches {largest:.3g}, allowed is {MAX_ABS_WEIGHT:g}; "
            "its training diverged, or it is damaged"
        )


def is_number_between(value: Any, low: float, high: float) -> bool:
    """Return True for a finite number from `low` to `high`."""
    # compared before isfinite, which fails for an integer too large for a float
    return type(value) in (int, float) and low <= value <= high and isfinite(value)
