"""What a part's settings say its weights are, held against what its files hold: by headers alone, with no weight in memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.nn.modules.module import register_module_parameter_registration_hook
from transformers import CLIPTextConfig

from .component_settings import check_ranges, check_settings
from .headers import FLOATS, FileError, first_line, read_header, read_settings

IGNORED = ("position_ids", "text_projection.weight", "logit_scale")
"""Ends of names in text encoders' files that a text encoder without them leaves out: older libraries wrote them."""
DEPRECATED_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Names in the VAEs of SD 1.x, and what diffusers makes of them."""
CLIP_SETTINGS = (
    "vocab_size", "hidden_size", "intermediate_size", "projection_dim", "num_hidden_layers", "num_attention_heads",
    "max_position_embeddings", "hidden_act", "layer_norm_eps", "attention_dropout", "initializer_range",
    "initializer_factor", "pad_token_id", "bos_token_id", "eos_token_id",
)  # fmt: skip
"""All that a text encoder depends on."""
SHOWN = 5  # names in an error
Shapes = dict[str, tuple[int, ...]]


def checked_model(cls: type, settings: dict[str, Any], files: list[Path]) -> torch.nn.Module:
    """Build a part on the meta device, and hold it against the headers of its files.

    Errors: FileError where the settings make no model, or a weight is missing, unexpected, misshapen or no float.
    """
    found = weights_in(files)
    model = build_without_weights(cls, settings, most=len(found))
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    given = stored_name(found, wanted, model, sharded=len(files) > 1)
    wrong = {
        "missing": sorted(set(wanted) - set(given)),
        "unexpected": sorted(set(given) - set(wanted)),
        "misshapen": [
            f"{name} is {list(given[name])}, wanted {list(wanted[name])}"
            for name in sorted(set(given) & set(wanted))
            if given[name] != wanted[name]
        ],
    }
    if told := [f"{len(names)} {what} ({_some(names)})" for what, names in wrong.items() if names]:
        raise FileError(f"its weights are not those of its config.json: {'; '.join(told)}")
    return model


def build_without_weights(cls: type, settings: dict[str, Any], most: int) -> torch.nn.Module:
    """Build a model of a class without memory for weights. most: weights that its files hold; one of more is given up.

    Errors: FileError where the settings make no model.
    """
    if settings.get("quantization_config") is not None:
        raise FileError("its config.json asks for quantized weights, which are not supported")
    try:
        if is_clip(cls):
            check_ranges(vars(config := config_of(settings)))
        else:
            check_settings(cls, settings)
        with torch.device("meta"), _at_most(2 * most + 100):
            return cls(config) if is_clip(cls) else cls.from_config(settings)
    except FileError:
        raise
    except (
        Exception
    ) as failure:  # settings of any kind reach the libraries' own code, which checks few of them
        raise FileError(f"its config.json makes no {cls.__name__}: {first_line(failure)}") from None


def is_clip(cls: type) -> bool:
    """Whether a class is transformers', which takes its settings as an object."""
    return getattr(cls, "config_class", None) is CLIPTextConfig


def config_of(settings: dict[str, Any]) -> CLIPTextConfig:
    """Return a text encoder's settings, without those that name code or kernels to fetch."""
    if isinstance(settings.get("text_config"), dict):
        settings = settings["text_config"]
    return CLIPTextConfig(**{name: settings[name] for name in CLIP_SETTINGS if name in settings})


def weights_in(files: list[Path]) -> dict[str, tuple[tuple[int, ...], str]]:
    """Return shape and type of every weight, in one file, or in shards behind the index that names them. Errors: FileError."""
    if len(files) == 1:
        return read_header(files[0]).weights
    index, *shards = files
    places, found = expected_shapes(index), {}
    if missing := sorted(set(places.values()) - {shard.name for shard in shards}):
        raise FileError(f"{index.name} names files that are not there: {_some(missing)}")
    for shard in shards:
        if shard.name not in places.values():
            continue  # of another save; no library reads it
        here = {name for name, place in places.items() if place == shard.name}
        held = read_header(shard).weights
        if here != set(held):
            raise FileError(
                f"{shard.name} does not hold the weights that {index.name} says: {_some(sorted(here ^ set(held)))}"
            )
        found |= held
    return found


def expected_shapes(index: Path) -> dict[str, str]:
    """Return the file of each weight. Errors: FileError."""
    settings = read_settings(index)
    places = settings.get("weight_map")
    plain = isinstance(places, dict) and all(
        isinstance(place, str) and "/" not in place for place in places.values()
    )
    if not plain or not places or not isinstance(settings.get("metadata", {}), dict):
        raise FileError(
            f"{index.name} is damaged: its weight_map names no files in its folder, or its metadata is no object"
        )
    return places


def stored_name(
    found: dict[str, tuple[tuple[int, ...], str]],
    wanted: Shapes,
    model: torch.nn.Module,
    sharded: bool,
) -> Shapes:
    """Return shapes by the names that the libraries load the weights under, without those that they leave out by right.

    Errors: FileError for two weights of one name, and for weights that are no floats.
    """
    given, clip = {}, is_clip(type(model))
    old = [
        path
        for path, each in model.named_modules()
        if getattr(each, "_from_deprecated_attn_block", False)
    ]
    for name, (shape, kind) in found.items():
        known = _clip_name(name, wanted) if clip else name if sharded else _vae_name(name, old)
        if clip and known not in wanted and known.endswith(IGNORED):
            continue
        if kind not in FLOATS:
            raise FileError(f"{name:.150} is of type {kind}, allowed are {', '.join(FLOATS)}")
        if known in given:
            raise FileError(f"its weights hold {known:.150} twice")
        given[known] = shape
    return given


def _clip_name(name: str, wanted: Shapes) -> str:
    """Return the name with the prefix that this version of the class has or has not."""
    plain = name.removeprefix("text_model.")
    return next((each for each in (plain, f"text_model.{plain}") if each in wanted), name)


def _vae_name(name: str, old: list[str]) -> str:
    """Return the name that diffusers gives a weight of an attention block of long ago. old: paths of such blocks."""
    path, _, last = name.rpartition(".")
    above, _, own = path.rpartition(".")
    return (
        f"{above}.{DEPRECATED_ATTENTION[own]}.{last}"
        if own in DEPRECATED_ATTENTION and above in old
        else name
    )


@contextmanager
def _at_most(most: int) -> Iterator[None]:
    """Give up a model that gets more weights: a number of layers of 10**9 would be built for days."""
    count = 0

    def counted(*_):
        nonlocal count
        count += 1
        if count > most:
            raise FileError(
                "its config.json describes a model of many more weights than its files hold"
            )

    handle = register_module_parameter_registration_hook(counted)
    try:
        yield
    finally:
        handle.remove()


def _some(names: list[str]) -> str:
    return ", ".join(f"{name:.150}" for name in names[:SHOWN]) + (
        ", …" if len(names) > SHOWN else ""
    )
