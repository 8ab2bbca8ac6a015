"""An adapter's file, as diffusers writes it; equal adapters are equal files."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin, UNet2DConditionModel
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save

from ...files import write_atomic
from .layers import ADAPTER_NAME
from .metadata import LORA_FILE, METADATA_KEY


def lora_state_dict(denoiser: ModelMixin) -> dict[str, torch.Tensor]:
    """Return the adapter's weights by peft's keys, sorted, fp32 on the CPU."""
    config = denoiser.peft_config[ADAPTER_NAME]
    prefix = component_name(denoiser)
    scale = config.lora_alpha / (config.r**0.5 if config.use_rslora else config.r)
    # not diffusers' conversion: it renames the keys of attention layers only, and its loader then
    # drops them if there are others
    weights = get_peft_model_state_dict(denoiser, adapter_name=ADAPTER_NAME)
    state = {}
    for key in sorted(weights):
        # the scale is folded into B, so that a loader without alpha applies the right strength
        factor = scale if "lora_B" in key else 1.0
        weight = weights[key].detach().float() * factor
        state[f"{prefix}.{key}"] = weight.cpu().contiguous()
    return state


def component_name(denoiser: ModelMixin) -> str:
    """Return the name of a denoiser in its pipeline, with which diffusers begins each key."""
    return "unet" if isinstance(denoiser, UNet2DConditionModel) else "transformer"


def save_adapter(folder: Path, denoiser: ModelMixin, facts: dict[str, Any]) -> Path:
    """Write the adapter as diffusers does, so that `load_lora_weights` reads it.

    facts: metadata for the file, e.g. base, base_hash, w_train
    """
    config = denoiser.peft_config[ADAPTER_NAME]
    prefix = component_name(denoiser)
    # the scale is in the weights: see `lora_state_dict`
    folded = {"lora_alpha": config.r, "use_rslora": False, "lora_dropout": 0.0}
    settings = {}
    for key, value in (config.to_dict() | folded).items():
        # JSON cannot hold an enum, and each is the same for every LoRA
        is_enum = hasattr(value, "value")
        if not is_enum:
            # sorted, because a set has another order in each process
            settings[f"{prefix}.{key}"] = sorted(value) if isinstance(value, set) else value
    metadata = {
        "format": "pt",
        LORA_ADAPTER_METADATA_KEY: json.dumps(settings, sort_keys=True, default=str),
        METADATA_KEY: json.dumps(facts, sort_keys=True),
    }
    content = save(lora_state_dict(denoiser), metadata)
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
