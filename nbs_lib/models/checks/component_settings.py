"""The settings of a part, held against what its class takes: the libraries check few of them, and late."""

import inspect
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from .headers import FileError

MAX_INTEGER = 1 << 24
"""Of whole numbers in settings. The largest real one is a vocabulary of 49,408."""
RANGES = {
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
    "num_train_timesteps": (1000, 10_000),  # up to 1,000 steps may be asked for
    "steps_offset": (0, 1),
    "beta_start": (1e-9, 1),
    "beta_end": (1e-9, 1),
    "trained_betas": (0, 1),
}
"""Lowest and highest value of settings that no weight bears out."""
CHOICES = {
    "prediction_type": ("epsilon", "v_prediction", "sample"),
    "timestep_spacing": ("leading", "trailing", "linspace"),
}
"""Texts that settings may hold."""


def check_settings(cls: type, settings: dict[str, Any]):
    """Check the types and the ranges of all settings that a class of diffusers takes. Errors: FileError."""
    kinds_of = _kinds_of(cls)
    own = {name: value for name, value in settings.items() if name in kinds_of}
    for name, value in own.items():
        kinds = kinds_of[name]
        if wrong := [each for each in _leaves(value) if not _fits(each, kinds)]:
            allowed = ", ".join(kind.__name__ for kind in kinds)
            raise FileError(f"{name} holds {wrong[0]!r:.60}, allowed are values of {allowed}")
        if isinstance(value, list) and list not in kinds:
            raise FileError(f"{name} is a list, allowed is one value")
        if name in CHOICES and value not in CHOICES[name]:
            raise FileError(
                f"{name} is {value!r:.60}, allowed is one of {', '.join(CHOICES[name])}"
            )
    check_ranges(own)


def check_ranges(settings: dict[str, Any]):
    """Check that no number in settings is beyond what a model can have. Errors: FileError."""
    for name, value in settings.items():
        low, high = RANGES.get(name, (-MAX_INTEGER, MAX_INTEGER))
        if wrong := [
            each
            for each in _leaves(value)
            if isinstance(each, int | float) and not low <= each <= high
        ]:
            raise FileError(f"{name} holds {wrong[0]!r:.60}, allowed is {low:g} to {high:g}")


def _leaves(value: Any) -> list[Any]:
    if not isinstance(value, list):
        return [value]
    return [leaf for each in value for leaf in (each if isinstance(each, list) else [each])]


def _fits(value: Any, kinds: tuple) -> bool:
    return type(value) in kinds or float in kinds and type(value) is int


@cache
def _kinds_of(cls: type) -> dict[str, tuple]:
    """Return, for each setting of a class, the types of its values, and `list` where it may be one."""
    hints = get_type_hints(cls.__init__)
    own = inspect.signature(cls.__init__).parameters.values()
    return {
        each.name: tuple(
            dict.fromkeys(
                [*(_flat(hints[each.name])), *([NoneType] if each.default is None else [])]
            )
        )
        for each in own
        if each.name in hints and each.default is not inspect.Parameter.empty
    }


def _flat(hint: Any) -> list[Any]:
    """Return the types in an annotation, those in its lists and tuples too."""
    origin = get_origin(hint)
    if origin is Literal:
        return [
            type(each) for each in get_args(hint)
        ]  # others write more values than each class lists
    if origin in (Union, UnionType):
        return [kind for each in get_args(hint) for kind in _flat(each)]
    if origin in (tuple, list) or hint in (tuple, list):
        return [
            list,
            *(kind for each in get_args(hint) if each is not Ellipsis for kind in _flat(each)),
        ]
    return [hint] if hint in (int, float, bool, str, NoneType) else []
