"""Types and ranges of a component's settings, which the libraries check late or never."""

import inspect
import math
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from .headers import FileError

MAX_INTEGER = 1 << 24  # the largest real setting is a vocabulary of 49,408
# Lowest and highest value of settings that no weight's shape confirms.
SETTING_RANGES = {
    "sample_size": (1, 8192),
    "downsample_padding": (0, 1),
    "freq_shift": (0, 1),
    "norm_num_groups": (1, 1024),
    "attention_head_dim": (1, 1 << 16),
    "num_attention_heads": (1, 1 << 16),
    "dropout": (0, 1),
    "norm_eps": (1e-12, 1),
    "layer_norm_eps": (1e-12, 1),
    "mid_block_scale_factor": (1e-3, 1e3),
    "resnet_out_scale_factor": (1e-3, 1e3),
    "scaling_factor": (1e-6, 1e6),
    "latents_mean": (-1e6, 1e6),
    "latents_std": (1e-6, 1e6),
    "num_train_timesteps": (1000, 1000),  # all that is trained on: `cache.format.N_TIMESTEPS`
    "steps_offset": (0, 1),
    "beta_start": (1e-9, 1),
    "beta_end": (1e-9, 1),
    "trained_betas": (0, 1),
    "shift": (0.01, 100),
    "layer_norm_epsilon": (1e-12, 1),
    "shift_factor": (-1e6, 1e6),
    # of DPM-Solver; without a limit by default
    "lambda_min_clipped": (-math.inf, 100),
}
SETTING_CHOICES = {
    "prediction_type": ("epsilon", "v_prediction", "sample"),
    "timestep_spacing": ("leading", "trailing", "linspace"),
}


def check_settings(cls: type, settings: dict[str, Any]):
    """Check types and ranges of the settings that a class of diffusers takes. Errors: FileError."""
    allowed = _setting_types(cls)
    relevant = {name: value for name, value in settings.items() if name in allowed}
    for name, value in relevant.items():
        _check_type(name, value, allowed[name])
        if name in SETTING_CHOICES and value not in SETTING_CHOICES[name]:
            choices = ", ".join(SETTING_CHOICES[name])
            raise FileError(f"{name} is {value!r:.60}, allowed is one of {choices}")
    check_ranges(relevant)


def _check_type(name: str, value: Any, types: tuple[type, ...]):
    for leaf in _leaves(value):
        # some libraries write 1.0 as 1
        is_float = float in types and type(leaf) is int
        if type(leaf) not in types and not is_float:
            allowed = ", ".join(kind.__name__ for kind in types)
            raise FileError(f"{name} holds {leaf!r:.60}, allowed are values of {allowed}")
    if isinstance(value, list) and list not in types:
        raise FileError(f"{name} is a list, allowed is one value")


def check_ranges(settings: dict[str, Any]):
    """Check that no number in settings is beyond what a model can have. Errors: FileError."""
    for name, value in settings.items():
        low, high = SETTING_RANGES.get(name, (-MAX_INTEGER, MAX_INTEGER))
        for leaf in _leaves(value):
            if isinstance(leaf, int | float) and not low <= leaf <= high:
                raise FileError(f"{name} holds {leaf!r:.60}, allowed is {low:g} to {high:g}")


def _leaves(value: Any) -> list[Any]:
    """Return the values in a list and in the lists in it; of any other value, itself."""
    if not isinstance(value, list):
        return [value]
    leaves = []
    for item in value:
        leaves += item if isinstance(item, list) else [item]
    return leaves


@cache
def _setting_types(cls: type) -> dict[str, tuple[type, ...]]:
    """Return the types of each setting of a class; `list` is among them if it may be a list."""
    hints = get_type_hints(cls.__init__)
    types = {}
    for name, parameter in inspect.signature(cls.__init__).parameters.items():
        # without a default it is no setting
        if name in hints and parameter.default is not inspect.Parameter.empty:
            optional = [NoneType] if parameter.default is None else []
            types[name] = tuple(dict.fromkeys([*_flat_types(hints[name]), *optional]))
    return types


def _flat_types(hint: Any) -> list[type]:
    """Return the types in an annotation, including those in its lists and tuples."""
    origin = get_origin(hint)
    arguments = get_args(hint)
    if origin is Literal:
        # the types only: older libraries wrote more values than each class lists
        return [type(choice) for choice in arguments]
    inner = []
    for argument in arguments:
        inner += _flat_types(argument)
    if origin in (Union, UnionType):
        return inner
    if origin in (tuple, list) or hint in (tuple, list):
        return [list, *inner]
    return [hint] if hint in (int, float, bool, str, NoneType) else []
