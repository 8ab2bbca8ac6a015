"""The adapter: a LoRA on the UNet, attached, switched, saved, loaded and verified.

Source: arXiv 2106.09685; a weight W becomes W + s B A with s = alpha / rank, and B zero at the start. rsLoRA (arXiv
2312.03732) has s = alpha / sqrt(rank); DoRA (arXiv 2402.09353) learns the norms of W's rows beside it.
"""

import json
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

from ..files import write_atomic
from . import StableDiffusion
from .checks.headers import FileError, read_header, read_settings
from .lora_compatibility import unsupported_layers
from .lora_file import AdapterError, checked_metadata, lora_targets_of, parse_metadata

ADAPTER_NAME = "default"
LORA_FILE = "pytorch_lora_weights.safetensors"
METADATA_KEY = "onepass"
METADATA_FILE = "onepass.json"
"""Beside a whole model that was trained: what an adapter has in its metadata."""
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
TARGETS = {
    "attention": ATTENTION,
    "feedforward": [*ATTENTION, "ff.net.0.proj", "ff.net.2"],
    "all": [],
}
"""The presets of layers that a LoRA is put on, by the ends of their names; `all` is every layer that other programs load."""


def add_lora(
    unet: UNet2DConditionModel,
    rank: int,
    alpha: float,
    seed: int,
    targets: str = "attention",
    method: str = "lora",
    dropout: float = 0.0,
) -> list[torch.nn.Parameter]:
    """Put a new adapter on the frozen UNet; the UNet predicts as before until it is trained.

    targets: a key of `TARGETS`; method: lora, rslora or dora; dropout: share of the LoRA's inputs left out in training.
    Returns its parameters in fp32, the only ones that want gradients, in the UNet's order.
    """
    unet.requires_grad_(False)
    config = LoraConfig(
        r=rank, lora_alpha=alpha, target_modules=target_layers(unet, targets), init_lora_weights="gaussian", lora_dropout=dropout,
        use_rslora=method == "rslora", use_dora=method == "dora",
    )  # fmt: skip
    unet.add_adapter(config, adapter_name=ADAPTER_NAME)
    generator = torch.Generator().manual_seed(seed)
    parameters = []
    for name, parameter in unet.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
            if (
                "lora_A" in name
            ):  # drawn again from our own generator: peft's draw depends on the global one
                parameter.data.copy_(torch.randn(parameter.shape, generator=generator) / rank)
            parameters.append(parameter)
    return parameters


def target_layers(unet: UNet2DConditionModel, targets: str) -> list[str]:
    """Return what peft is told of a preset: ends of names, or the whole names of all layers that other programs load."""
    if ends := TARGETS[targets]:
        return ends
    layers = lora_targets_of(unet)
    missed = {name for names in unsupported_layers(layers).values() for name in names}
    return [name for name in layers if name not in missed]


def lora_layers(unet: UNet2DConditionModel) -> list[BaseTunerLayer]:
    """The layers of a UNet that an adapter is on."""
    return [module for module in unet.modules() if isinstance(module, BaseTunerLayer)]


@contextmanager
def disable_lora(layers: list[BaseTunerLayer]) -> Iterator[None]:
    """The base UNet for a while: the teacher. What wants gradients is left as it was. layers: all that the adapter is on.

    This is the flag that peft's own switch sets; that goes through all modules and parameters besides, in every step.
    """
    for layer in layers:
        layer._disable_adapters = True
    try:
        yield
    finally:
        for layer in layers:
            layer._disable_adapters = False


def lora_state_dict(unet: UNet2DConditionModel) -> dict[str, torch.Tensor]:
    """The adapter's weights, fp32 on the CPU, in the order of their keys: peft's, all of them.

    diffusers' own conversion renames the attention layers' keys only, and its loader then drops them where there are
    others beside them. The scale s is folded into B, so that a loader which knows no alpha applies the right strength too.
    """
    config = unet.peft_config[ADAPTER_NAME]
    s = config.lora_alpha / (config.r**0.5 if config.use_rslora else config.r)
    found = get_peft_model_state_dict(unet, adapter_name=ADAPTER_NAME)
    scales = {key: s if "lora_B" in key else 1.0 for key in found}
    return {
        f"unet.{key}": (found[key].detach().float() * scales[key]).cpu().contiguous()
        for key in sorted(found)
    }


def save_adapter(folder: Path, unet: UNet2DConditionModel, facts: dict[str, Any]) -> Path:
    """Write `pytorch_lora_weights.safetensors` as diffusers does, so that `load_lora_weights` takes it.

    facts: recorded in the file's metadata under `onepass`, e.g. base, base_hash, w_train.
    """
    folded = {
        "lora_alpha": unet.peft_config[ADAPTER_NAME].r,
        "use_rslora": False,
        "lora_dropout": 0.0,
    }
    config = unet.peft_config[ADAPTER_NAME].to_dict() | folded
    config = {
        f"unet.{key}": sorted(v) if isinstance(v, set) else v
        for key, v in config.items()
        if not hasattr(v, "value")
    }
    metadata = {
        "format": "pt",
        LORA_ADAPTER_METADATA_KEY: json.dumps(config, sort_keys=True, default=str),
        METADATA_KEY: json.dumps(facts, sort_keys=True),
    }
    write_atomic(folder / LORA_FILE, _in_order(save(lora_state_dict(unet), metadata)))
    return folder / LORA_FILE


def _in_order(file: bytes) -> bytes:
    """A safetensors file with its header's keys in order: the library writes metadata in another order each time, and
    the same adapter is to be the same file."""
    end = 8 + int.from_bytes(file[:8], "little")
    header = json.dumps(json.loads(file[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + file[end:]


def load_metadata(folder: Path) -> dict[str, Any]:
    """Return what was recorded with an adapter, or with a whole model.

    Errors: FileNotFoundError without one; AdapterError where it is damaged or was not trained by Onepass.
    """
    path, record = folder / LORA_FILE, folder / METADATA_FILE
    try:
        if record.is_file():
            return checked_metadata(read_settings(record), record)
        if not path.is_file():
            raise FileNotFoundError(
                f"{folder} holds no {LORA_FILE}; train an adapter first (notebooks/2_train.ipynb)"
            )
        metadata = read_header(path).metadata
    except FileError as failure:
        raise AdapterError(folder, failure) from None
    if METADATA_KEY not in metadata:
        raise AdapterError(
            path, f"it has no {METADATA_KEY!r} metadata, so it was not trained by Onepass"
        )
    return parse_metadata(metadata[METADATA_KEY], path)


@torch.no_grad()
def verify_adapter(
    folder: Path, trained: UNet2DConditionModel, base: StableDiffusion, lean: bool = False
) -> float:
    """Load the saved adapter the stock way onto a fresh UNet of the base and hold it against the trained one on it.

    Returns the largest difference of their predictions on fixed noise. One after the other, on one UNet: a second one might
    not fit. lean: keep the base's weights in bf16 meanwhile; not for DoRA, which reads them outside their layers.
    Errors: RuntimeError above 1e-4 of the largest prediction: the file would give other pictures than training did.
    """
    fresh = _lean(base.unet(torch.bfloat16)) if lean else base.unet()
    learned = {name: value for name, value in trained.named_parameters() if "lora_" in name}
    fresh.add_adapter(trained.peft_config[ADAPTER_NAME], adapter_name=ADAPTER_NAME)
    fresh.load_state_dict(learned, strict=False)
    was = prediction(fresh, base)
    fresh.unload_lora()
    state, alphas, metadata = base.pipeline_class.lora_state_dict(
        folder, weight_name=LORA_FILE, return_lora_metadata=True
    )
    base.pipeline_class.load_lora_into_unet(state, alphas, fresh, metadata=metadata)
    return difference(was, prediction(fresh, base), folder / LORA_FILE)


def _lean(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """A bf16 UNet that computes in fp32: each layer has its weight in fp32 for as long as it works, and else none that
    takes memory. An adapter that is put on it finds fp32 layers, and is not rounded."""
    for module in unet.modules():
        kept = None
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
            kept = module.weight.data
            module.weight.data = torch.zeros(1).expand(kept.shape)
            module.register_forward_pre_hook(
                lambda module, _, kept=kept: setattr(module.weight, "data", kept.float())
            )
            empty = module.weight.data
            module.register_forward_hook(
                lambda module, *_, empty=empty: setattr(module.weight, "data", empty)
            )
        for name, parameter in module.named_parameters(recurse=False):
            if kept is None or name != "weight":
                parameter.data = parameter.data.float()
    return unet


@torch.no_grad()
def prediction(unet: UNet2DConditionModel, base: StableDiffusion) -> torch.Tensor:
    """What a UNet of the base's family makes of fixed noise, on the CPU: [2, c, 16, 16]."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, unet.config.in_channels, 16, 16, generator=generator)
    text, t = base.random_text(2, 8, generator), torch.tensor([100, 900])
    context, pooled = (None if part is None else part.to(unet.device, unet.dtype) for part in text)
    added = base.added_cond_kwargs(pooled, x)
    # in full fp32 on a GPU too, whose convolutions round to TF32 unless told otherwise
    with torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    ):
        made = unet.eval()(
            x.to(unet.device, unet.dtype), t.to(unet.device), context, added_cond_kwargs=added
        )
        return made.sample.float().cpu()


def difference(was: torch.Tensor, now: torch.Tensor, path: Path) -> float:
    """The largest difference of two predictions.

    Errors: RuntimeError above 1e-4 of the largest prediction, naming the path that the second one's weights came from.
    """
    largest, size = float((was - now).abs().max()), float(was.abs().max())
    if not largest <= 1e-4 * size:
        raise RuntimeError(
            f"{path} does not load back: predictions differ by {largest:.2g} of {size:.2g}"
        )
    return largest
