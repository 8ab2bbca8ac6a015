"""The adapter: a LoRA on the UNet's attention projections, attached, switched, saved, loaded and verified.

Source: arXiv 2106.09685; a weight W becomes W + (alpha / rank) B A, with B zero at the start.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import save

from .files import write_atomic

NAME = "default"
WEIGHTS = "pytorch_lora_weights.safetensors"
METADATA_KEY = "onepass"
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]


def attach(unet: UNet2DConditionModel, rank: int, alpha: float, seed: int) -> list[torch.nn.Parameter]:
    """Put a new adapter on the frozen UNet; the UNet predicts as before until it is trained.

    Returns its parameters in fp32, the only ones that want gradients, in the UNet's order.
    """
    unet.requires_grad_(False)
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=ATTENTION, init_lora_weights="gaussian")
    unet.add_adapter(config, adapter_name=NAME)
    generator = torch.Generator().manual_seed(seed)
    parameters = []
    for name, parameter in unet.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
            if "lora_A" in name:  # drawn again from our own generator: peft's draw depends on the global one
                parameter.data.copy_(torch.randn(parameter.shape, generator=generator) / rank)
            parameters.append(parameter)
    return parameters


@contextmanager
def adapter_off(unet: UNet2DConditionModel) -> Iterator[None]:
    """The base UNet for a while: the teacher. What wants gradients is left as it was."""
    wanted = [(parameter, parameter.requires_grad) for parameter in unet.parameters()]
    unet.disable_adapters()
    try:
        yield
    finally:
        unet.enable_adapters()
        for parameter, requires_grad in wanted:
            parameter.requires_grad_(requires_grad)


def weights(unet: UNet2DConditionModel) -> dict[str, torch.Tensor]:
    """The adapter's weights under diffusers' keys, fp32 on the CPU, in the order of the keys.

    The scale alpha / rank is folded into B, so that a loader which knows no alpha applies the right strength too.
    """
    config = unet.peft_config[NAME]
    found = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet, adapter_name=NAME))
    scales = {key: config.lora_alpha / config.r if "lora_B" in key or ".up." in key else 1.0 for key in found}
    return {f"unet.{key}": (found[key].detach().float() * scales[key]).cpu().contiguous() for key in sorted(found)}


def save_adapter(folder: Path, unet: UNet2DConditionModel, facts: dict[str, Any]) -> Path:
    """Write `pytorch_lora_weights.safetensors` as diffusers does, so that `load_lora_weights` takes it.

    facts: recorded in the file's metadata under `onepass`, e.g. base, base_hash, w_train.
    """
    config = unet.peft_config[NAME].to_dict() | {"lora_alpha": unet.peft_config[NAME].r}
    config = {f"unet.{key}": sorted(v) if isinstance(v, set) else v for key, v in config.items() if not hasattr(v, "value")}
    metadata = {
        "format": "pt",
        LORA_ADAPTER_METADATA_KEY: json.dumps(config, sort_keys=True, default=str),
        METADATA_KEY: json.dumps(facts, sort_keys=True),
    }
    write_atomic(folder / WEIGHTS, _in_order(save(weights(unet), metadata)))
    return folder / WEIGHTS


def _in_order(file: bytes) -> bytes:
    """A safetensors file with its header's keys in order: the library writes metadata in another order each time, and
    the same adapter is to be the same file."""
    end = 8 + int.from_bytes(file[:8], "little")
    header = json.dumps(json.loads(file[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + file[end:]


def read_facts(folder: Path) -> dict[str, Any]:
    """What `save_adapter` recorded. Errors: FileNotFoundError; ValueError if the file is not one of ours."""
    path = folder / WEIGHTS
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no {WEIGHTS}; train an adapter first (notebooks/2_train.ipynb)")
    with safe_open(path, "pt") as opened:
        metadata = opened.metadata() or {}
    if METADATA_KEY not in metadata:
        raise ValueError(f"{path} has no {METADATA_KEY!r} metadata; it was not trained by Onepass")
    return json.loads(metadata[METADATA_KEY])


@torch.no_grad()
def verify(folder: Path, trained: UNet2DConditionModel, fresh: UNet2DConditionModel) -> float:
    """Load the saved adapter the stock way onto a fresh UNet and hold it against the trained adapter on its twin.

    Returns the largest difference of their predictions on fixed noise. Errors: RuntimeError above 1e-4 of the largest
    prediction: the file would give other pictures than training did.
    """
    from diffusers import StableDiffusionPipeline

    config, twin = trained.peft_config[NAME], deepcopy(fresh)
    learned = {name: value for name, value in trained.named_parameters() if "lora_" in name}
    attach(twin, config.r, config.lora_alpha, seed=0)
    twin.load_state_dict(learned, strict=False)
    state, alphas, metadata = StableDiffusionPipeline.lora_state_dict(folder, weight_name=WEIGHTS, return_lora_metadata=True)
    StableDiffusionPipeline.load_lora_into_unet(state, alphas, fresh, metadata=metadata)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, fresh.config.in_channels, 16, 16, generator=generator)
    context = torch.randn(2, 8, fresh.config.cross_attention_dim, generator=generator)
    was, now = (unet(x, torch.tensor([100, 900]), context).sample for unet in (twin, fresh))
    difference, size = float((was - now).abs().max()), float(was.abs().max())
    if not difference <= 1e-4 * size:
        raise RuntimeError(f"{folder / WEIGHTS} does not load back: predictions differ by {difference:.2g} of {size:.2g}")
    return difference
