"""The weights that a component's settings ask for against those in its files, by headers alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.nn.modules.module import register_module_parameter_registration_hook
from transformers import CLIPTextConfig, PretrainedConfig, T5Config

from .component_settings import check_ranges, check_settings
from .headers import FLOATS, FileError, Weights, first_line, read_header, read_settings

# Ends of names that older libraries wrote into text encoders' files and the class may lack.
IGNORED = ("position_ids", "text_projection.weight", "logit_scale")
# Names in the VAEs of SD 1.x, and diffusers' names for them.
DEPRECATED_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
# Everything that a text encoder depends on.
CLIP_SETTINGS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "projection_dim",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
    "hidden_act",
    "layer_norm_eps",
    "attention_dropout",
    "initializer_range",
    "initializer_factor",
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
)
T5_SETTINGS = (
    "vocab_size d_model d_kv d_ff num_layers num_heads relative_attention_num_buckets "
    "relative_attention_max_distance dropout_rate layer_norm_epsilon initializer_factor "
    "feed_forward_proj pad_token_id eos_token_id"
).split()
TEXT_SETTINGS = {CLIPTextConfig: CLIP_SETTINGS, T5Config: T5_SETTINGS}
# T5's two names of one weight, of which files hold either.
T5_EMBEDDING = ("shared.weight", "encoder.embed_tokens.weight")
MAX_NAMES = 5  # in an error
Shapes = dict[str, tuple[int, ...]]


def checked_model(cls: type, settings: dict[str, Any], files: list[Path]) -> torch.nn.Module:
    """Return a component on the meta device after a comparison with the headers of its files.

    Errors: FileError if the settings make no model, or a weight is missing, unexpected, misshapen
    or no float
    """
    stored = weights_in(files)
    model = build_without_weights(cls, settings, n_weights=len(stored))
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    shapes = loaded_shapes(stored, expected, model, sharded=len(files) > 1)
    both = sorted(expected.keys() & shapes.keys())
    misshapen = [
        f"{name} is {list(shapes[name])}, wanted {list(expected[name])}"
        for name in both
        if shapes[name] != expected[name]
    ]
    problems = {
        "missing": sorted(expected.keys() - shapes.keys()),
        "unexpected": sorted(shapes.keys() - expected.keys()),
        "misshapen": misshapen,
    }
    phrases = [
        f"{len(names)} {problem} ({_first_names(names)})"
        for problem, names in problems.items()
        if names
    ]
    if phrases:
        raise FileError(f"its weights are not those of its config.json: {'; '.join(phrases)}")
    return model


def build_without_weights(cls: type, settings: dict[str, Any], n_weights: int) -> torch.nn.Module:
    """Return a model of a class on the meta device.

    n_weights: in its files; a model that needs many more is given up

    Errors: FileError if the settings make no model
    """
    # transformers would import what it names
    if settings.get("quantization_config") is not None:
        raise FileError("its config.json asks for quantized weights, which are not supported")
    try:
        # a model may need more than its files hold: buffers, and weights reported as missing
        with torch.device("meta"), _limited_to(2 * n_weights + 100):
            if is_text_encoder(cls):
                config = config_of(cls, settings)
                check_ranges(vars(config))
                return cls(config)
            check_settings(cls, settings)
            return cls.from_config(settings)
    except FileError:
        raise
    except Exception as failure:  # the libraries check few of the settings that reach them
        raise FileError(f"its config.json makes no {cls.__name__}: {first_line(failure)}") from None


def is_text_encoder(cls: type) -> bool:
    """Return True for a class of transformers, which takes its settings as an object."""
    return getattr(cls, "config_class", None) in TEXT_SETTINGS


def config_of(cls: type, settings: dict[str, Any]) -> PretrainedConfig:
    """Return a text encoder's settings, without any that name code or kernels to fetch."""
    # a config of both towers
    if isinstance(settings.get("text_config"), dict):
        settings = settings["text_config"]
    names = TEXT_SETTINGS[cls.config_class]
    return cls.config_class(**{name: settings[name] for name in names if name in settings})


def weights_in(files: list[Path]) -> Weights:
    """Return shape and type of every weight.

    files: one file, or an index and its shards

    Errors: FileError
    """
    if len(files) == 1:
        return read_header(files[0]).weights
    index, *shards = files
    file_of_weight = read_weight_map(index)
    missing = sorted(set(file_of_weight.values()) - {shard.name for shard in shards})
    if missing:
        raise FileError(f"{index.name} names files that are not there: {_first_names(missing)}")
    weights: Weights = {}
    for shard in shards:
        expected = {name for name, file in file_of_weight.items() if file == shard.name}
        if not expected:
            continue  # a leftover of another save, which no library reads
        header = read_header(shard)
        different = sorted(expected ^ header.weights.keys())
        if different:
            raise FileError(
                f"{shard.name} does not hold the weights that {index.name} says: "
                f"{_first_names(different)}"
            )
        weights |= header.weights
    return weights


def read_weight_map(index: Path) -> dict[str, str]:
    """Return the file of each weight according to an index. Errors: FileError."""
    settings = read_settings(index)
    weight_map = settings.get("weight_map")
    # a "/" could lead out of the base's folder
    plain = (
        isinstance(weight_map, dict)
        and bool(weight_map)
        and all(isinstance(file, str) and "/" not in file for file in weight_map.values())
    )
    if not plain or not isinstance(settings.get("metadata", {}), dict):
        raise FileError(
            f"{index.name} is damaged: its weight_map names no files in its folder, "
            "or its metadata is no object"
        )
    return weight_map


def loaded_shapes(
    stored: Weights, expected: Shapes, model: torch.nn.Module, sharded: bool
) -> Shapes:
    """Return shapes by the names under which the libraries load the weights.

    Weights that the libraries rightly skip are left out.

    Errors: FileError for two weights of one name, and for weights that are no floats
    """
    shapes: Shapes = {}
    text = is_text_encoder(type(model))
    old_blocks = [
        path
        for path, module in model.named_modules()
        if getattr(module, "_from_deprecated_attn_block", False)
    ]
    for name, (shape, kind) in stored.items():
        loaded = name
        if text:
            loaded = _text_name(name, expected)
            if loaded not in expected and loaded.endswith(IGNORED):
                continue
        elif not sharded:
            loaded = _vae_name(name, old_blocks)
        if kind not in FLOATS:
            raise FileError(f"{name:.150} is of type {kind}, allowed are {', '.join(FLOATS)}")
        # under an old and a new name; which one is loaded depends on the library
        if loaded in shapes:
            raise FileError(f"its weights hold {loaded:.150} twice")
        shapes[loaded] = shape
    return shapes | _tied_shapes(shapes, expected)


def _tied_shapes(shapes: Shapes, expected: Shapes) -> Shapes:
    """Return the shape of T5's embedding by both of its names."""
    stored = [shapes[name] for name in T5_EMBEDDING if name in shapes]
    return {name: stored[0] for name in T5_EMBEDDING if stored and name in expected}


def _text_name(name: str, expected: Shapes) -> str:
    """Return the name with or without the prefix, as this version of the class has it."""
    plain = name.removeprefix("text_model.")
    variants = (plain, f"text_model.{plain}")
    return next((variant for variant in variants if variant in expected), name)


def _vae_name(name: str, old_blocks: list[str]) -> str:
    """Return diffusers' new name for a weight of a deprecated attention block."""
    path, _, last = name.rpartition(".")
    block, _, layer = path.rpartition(".")
    if layer not in DEPRECATED_ATTENTION or block not in old_blocks:
        return name
    return f"{block}.{DEPRECATED_ATTENTION[layer]}.{last}"


@contextmanager
def _limited_to(max_weights: int) -> Iterator[None]:
    """Give up a model that gets more weights; 10**9 layers would be built for days."""
    count = 0

    def count_parameter(*_):
        nonlocal count
        count += 1
        if count > max_weights:
            raise FileError(
                "its config.json describes a model of many more weights than its files hold"
            )

    handle = register_module_parameter_registration_hook(count_parameter)
    try:
        yield
    finally:
        handle.remove()


def _first_names(names: list[str]) -> str:
    more = ", …" if len(names) > MAX_NAMES else ""
    return ", ".join(f"{name:.150}" for name in names[:MAX_NAMES]) + more
