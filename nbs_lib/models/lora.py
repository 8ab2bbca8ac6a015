"""LoRA on the UNet: add, switch off, save, load.

A weight W becomes W + s B A with s = alpha / rank, and B = 0 at the start. rsLoRA has
s = alpha / sqrt(rank); DoRA also learns the norms of W's rows.

Source: arXiv 2106.09685 (LoRA), arXiv 2312.03732 (rsLoRA), arXiv 2402.09353 (DoRA).
"""

import copy
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save

from ..config.contenders import SCHEDULERS, TIMESTEP_SPACINGS
from ..files import write_atomic
from .checks.headers import FileError, parse_settings, read_header, read_settings
from .lora_compatibility import unsupported_layers
from .lora_file import MAX_ALPHA, AdapterError, is_number_between, lora_targets_of
from .origin import plain_license
from .sampling_recipe import RECIPE_SENTENCES

ADAPTER_NAME = "default"
FAKE_SCORE = "fake_score"  # name of a second adapter, which is thrown away after the training
LORA_FILE = "pytorch_lora_weights.safetensors"  # diffusers' name
METADATA_KEY = "onepass"  # in the file's metadata
METADATA_FILE = "onepass.json"  # the same metadata beside a whole model that was trained
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
# Presets of layers by the ends of their names; `all` is every layer that other programs load.
TARGETS = {
    "attention": ATTENTION,
    "feedforward": [*ATTENTION, "ff.net.0.proj", "ff.net.2"],
    "all": [],
}


def add_lora(
    unet: UNet2DConditionModel,
    rank: int,
    alpha: float,
    seed: int,
    targets: str = "attention",
    method: str = "lora",
    dropout: float = 0.0,
) -> list[torch.nn.Parameter]:
    """Add a new adapter to the UNet, freeze everything else, and return the adapter's parameters.

    They are in fp32 and in the UNet's order. The UNet predicts as before until it is trained.

    targets: a key of TARGETS
    method: lora, rslora or dora
    dropout: share of the LoRA's inputs left out in training
    """
    unet.requires_grad_(False)
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=target_layers(unet, targets),
        init_lora_weights="gaussian",
        lora_dropout=dropout,
        use_rslora=method == "rslora",
        use_dora=method == "dora",
    )
    return _inject(unet, config, ADAPTER_NAME, seed)


def add_fake_score(unet: UNet2DConditionModel, seed: int) -> list[torch.nn.Parameter]:
    """Add a second adapter like the first one, and return its parameters; the first stays active.

    seed: of its first weights
    """
    config = copy.copy(unet.peft_config[ADAPTER_NAME])
    first = named_lora_parameters(unet, ADAPTER_NAME)
    with warnings.catch_warnings():
        # peft warns that there is another adapter already, which is the purpose
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")
        parameters = _inject(unet, config, FAKE_SCORE, seed)
    for layer in lora_layers(unet):
        layer._active_adapter = [ADAPTER_NAME]
    # peft has frozen them when it activated the second one
    for parameter in first.values():
        parameter.requires_grad_(True)
    return parameters


def named_lora_parameters(
    unet: UNet2DConditionModel, adapter: str
) -> dict[str, torch.nn.Parameter]:
    """Return the parameters of an adapter by their names, in the UNet's order."""
    return {
        name: parameter
        for name, parameter in unet.named_parameters()
        if "lora_" in name and adapter in name.split(".")
    }


def _inject(
    unet: UNet2DConditionModel, config: LoraConfig, adapter: str, seed: int
) -> list[torch.nn.Parameter]:
    """Add an adapter and return its parameters in fp32."""
    unet.add_adapter(config, adapter_name=adapter)
    generator = torch.Generator().manual_seed(seed)
    parameters = named_lora_parameters(unet, adapter)
    for name, parameter in parameters.items():
        # the optimizer needs fp32, whatever the base is loaded in
        parameter.data = parameter.data.float()
        if "lora_A" in name:
            # drawn again, because peft draws from the global generator
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data.copy_(noise / config.r)
    return list(parameters.values())


def target_layers(unet: UNet2DConditionModel, targets: str) -> list[str]:
    """Return peft's target_modules for a preset: ends of names, or full names for `all`."""
    if TARGETS[targets]:
        return TARGETS[targets]
    layers = lora_targets_of(unet)
    # other programs would skip a LoRA there silently
    unsupported = set().union(*unsupported_layers(layers).values())
    return [name for name in layers if name not in unsupported]


def lora_layers(unet: UNet2DConditionModel) -> list[BaseTunerLayer]:
    """Return the layers of a UNet that have an adapter."""
    return [module for module in unet.modules() if isinstance(module, BaseTunerLayer)]


@contextmanager
def disable_lora(layers: list[BaseTunerLayer]) -> Iterator[None]:
    """Switch the adapter off, which makes the UNet the teacher; requires_grad stays unchanged.

    layers: all with an adapter
    """
    # the flag behind peft's own switch, which also walks through all modules in every step
    for layer in layers:
        layer._disable_adapters = True
    try:
        yield
    finally:
        for layer in layers:
            layer._disable_adapters = False


@contextmanager
def activate_lora(layers: list[BaseTunerLayer], adapter: str) -> Iterator[None]:
    """Let another adapter work for a while; requires_grad stays unchanged.

    layers: all with an adapter
    """
    before = active_lora(layers)
    # the attribute behind peft's own switch, which also freezes the other adapters
    for layer in layers:
        layer._active_adapter = [adapter]
    try:
        yield
    finally:
        for layer in layers:
            layer._active_adapter = [before]


def active_lora(layers: list[BaseTunerLayer]) -> str:
    """Return the name of the adapter that works, "" if there is none. layers: all with one."""
    return layers[0].active_adapters[0] if layers else ""


def lora_state_dict(unet: UNet2DConditionModel) -> dict[str, torch.Tensor]:
    """Return the adapter's weights by peft's keys, sorted, fp32 on the CPU."""
    config = unet.peft_config[ADAPTER_NAME]
    scale = config.lora_alpha / (config.r**0.5 if config.use_rslora else config.r)
    # not diffusers' conversion: it renames the keys of attention layers only, and its loader then
    # drops them if there are others
    weights = get_peft_model_state_dict(unet, adapter_name=ADAPTER_NAME)
    state = {}
    for key in sorted(weights):
        # the scale is folded into B, so that a loader without alpha applies the right strength
        factor = scale if "lora_B" in key else 1.0
        weight = weights[key].detach().float() * factor
        state[f"unet.{key}"] = weight.cpu().contiguous()
    return state


def save_adapter(folder: Path, unet: UNet2DConditionModel, facts: dict[str, Any]) -> Path:
    """Write the adapter as diffusers does, so that `load_lora_weights` reads it.

    facts: metadata for the file, e.g. base, base_hash, w_train
    """
    config = unet.peft_config[ADAPTER_NAME]
    # the scale is in the weights: see `lora_state_dict`
    folded = {"lora_alpha": config.r, "use_rslora": False, "lora_dropout": 0.0}
    settings = {}
    for key, value in (config.to_dict() | folded).items():
        # JSON cannot hold an enum, and each is the same for every LoRA
        is_enum = hasattr(value, "value")
        if not is_enum:
            # sorted, because a set has another order in each process
            settings[f"unet.{key}"] = sorted(value) if isinstance(value, set) else value
    metadata = {
        "format": "pt",
        LORA_ADAPTER_METADATA_KEY: json.dumps(settings, sort_keys=True, default=str),
        METADATA_KEY: json.dumps(facts, sort_keys=True),
    }
    content = save(lora_state_dict(unet), metadata)
    # a killed training must not leave half an adapter
    write_atomic(folder / LORA_FILE, _sort_header(content))
    return folder / LORA_FILE


def _sort_header(content: bytes) -> bytes:
    """Return a safetensors file with its header's keys in order."""
    # the library writes metadata in another order each time; equal adapters must be equal files
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    # tensors start at a multiple of eight bytes
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[end:]


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
        "resolution": _is_count(metadata.get("resolution"), 1 << 16),
        "sampling": isinstance(sampling, dict)
        and is_number_between(sampling.get("guidance_scale", 1), 0, 1000)
        and sampling.get("scheduler", SCHEDULERS[0]) in SCHEDULERS
        and sampling.get("timestep_spacing", "") in TIMESTEP_SPACINGS
        and _is_count(sampling.get("steps"), 1000),
        "train": isinstance(train, dict)
        and (train.get("alpha") is None or is_number_between(train["alpha"], 1e-6, MAX_ALPHA)),
        "base_license": license_fields in ({}, plain_license(license_fields)),
    }
    for name in ("base", "base_origin", "negative"):
        checks[name] = isinstance(metadata.get(name, ""), str)
    for name, is_right in checks.items():
        if not is_right:
            value = metadata.get(name)
            raise AdapterError(path, f"its {name} is {value!r:.60}, which Onepass does not record")
    return metadata


def _is_count(value: Any, highest: int) -> bool:
    return value is None or (type(value) is int and 1 <= value <= highest)


def parse_metadata(text: str | bytes, path: Path) -> dict[str, Any]:
    """Return the metadata in a text. Errors: AdapterError."""
    try:
        return checked_metadata(parse_settings(text, "its record"), path)
    except FileError as failure:
        raise AdapterError(path, failure) from None
