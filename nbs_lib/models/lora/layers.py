"""LoRA on a denoiser: adapters added, switched off, and switched from one to another.

A weight W becomes W + s B A with s = alpha / rank, and B = 0 at the start. rsLoRA has
s = alpha / sqrt(rank); DoRA also learns the norms of W's rows.

Source: arXiv 2106.09685 (LoRA), arXiv 2312.03732 (rsLoRA), arXiv 2402.09353 (DoRA).
"""

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers import ModelMixin
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer

from .checks import lora_targets_of
from .compatibility import unsupported_layers

ADAPTER_NAME = "default"
FAKE_SCORE = "fake_score"  # name of a second adapter, which is thrown away after the training
MAX_FEW_STEPS = 8  # sampling steps that a fake score tells apart
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
# The text's side of joint attention, which the transformers of SD 3 have.
JOINT_ATTENTION = ["add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"]
FEEDFORWARD = ["ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"]
# Presets of layers by the ends of their names; `all` is every layer that other programs load.
TARGETS = {
    "attention": [*ATTENTION, *JOINT_ATTENTION],
    "feedforward": [*ATTENTION, *JOINT_ATTENTION, *FEEDFORWARD],
    "all": [],
}


def add_lora(
    denoiser: ModelMixin,
    rank: int,
    alpha: float,
    seed: int,
    targets: str = "attention",
    method: str = "lora",
    dropout: float = 0.0,
) -> list[torch.nn.Parameter]:
    """Add a new adapter to a denoiser, freeze everything else, and return the adapter's parameters.

    They are in fp32 and in the denoiser's order. It predicts as before until it is trained.

    targets: a key of TARGETS
    method: lora, rslora or dora
    dropout: share of the LoRA's inputs left out in training
    """
    denoiser.requires_grad_(False)
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=target_layers(denoiser, targets),
        init_lora_weights="gaussian",
        lora_dropout=dropout,
        use_rslora=method == "rslora",
        use_dora=method == "dora",
    )
    return _inject(denoiser, config, ADAPTER_NAME, seed)


def add_fake_score(denoiser: ModelMixin, seed: int) -> list[torch.nn.Parameter]:
    """Add a second adapter like the first one, and return its parameters; the first stays active.

    The last parameter, `denoiser.fake_score_steps`, is added to the text: a row for each number of
    sampling steps, zeros at the start.

    seed: of its first weights
    """
    config = copy.copy(denoiser.peft_config[ADAPTER_NAME])
    first = named_lora_parameters(denoiser, ADAPTER_NAME)
    with warnings.catch_warnings():
        # peft warns that there is another adapter already, which is the purpose
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")
        parameters = _inject(denoiser, config, FAKE_SCORE, seed)
    for layer in lora_layers(denoiser):
        layer._active_adapter = [ADAPTER_NAME]
    # peft has frozen them when it activated the second one
    for parameter in first.values():
        parameter.requires_grad_(True)
    rows = torch.zeros(MAX_FEW_STEPS + 1, _text_width(denoiser))
    denoiser.fake_score_steps = torch.nn.Parameter(rows.to(parameters[0].device))
    return [*parameters, denoiser.fake_score_steps]


def _text_width(denoiser: ModelMixin) -> int:
    # joint attention is that of a transformer
    return denoiser.config.get("joint_attention_dim") or denoiser.config["cross_attention_dim"]


def named_lora_parameters(denoiser: ModelMixin, adapter: str) -> dict[str, torch.nn.Parameter]:
    """Return the parameters of an adapter by their names, in the denoiser's order."""
    return {
        name: parameter
        for name, parameter in denoiser.named_parameters()
        if "lora_" in name and adapter in name.split(".")
    }


def _inject(
    denoiser: ModelMixin, config: LoraConfig, adapter: str, seed: int
) -> list[torch.nn.Parameter]:
    """Add an adapter and return its parameters in fp32."""
    denoiser.add_adapter(config, adapter_name=adapter)
    generator = torch.Generator().manual_seed(seed)
    parameters = named_lora_parameters(denoiser, adapter)
    for name, parameter in parameters.items():
        # the optimizer needs fp32, whatever the base is loaded in
        parameter.data = parameter.data.float()
        if "lora_A" in name:
            # drawn again, because peft draws from the global generator
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data.copy_(noise / config.r)
    return list(parameters.values())


def target_layers(denoiser: ModelMixin, targets: str) -> list[str]:
    """Return peft's target_modules for a preset: ends of names, or full names for `all`."""
    layers = lora_targets_of(denoiser)
    if TARGETS[targets]:
        # a UNet has no text's side, and an adapter's file names its layers alone
        return [
            end
            for end in TARGETS[targets]
            if any(f".{name}".endswith(f".{end}") for name in layers)
        ]
    # other programs would skip a LoRA there silently
    unsupported = set().union(*unsupported_layers(layers).values())
    return [name for name in layers if name not in unsupported]


def lora_layers(denoiser: ModelMixin) -> list[BaseTunerLayer]:
    """Return the layers of a denoiser that have an adapter."""
    return [module for module in denoiser.modules() if isinstance(module, BaseTunerLayer)]


@contextmanager
def disable_lora(layers: list[BaseTunerLayer]) -> Iterator[None]:
    """Switch the adapter off, which makes the denoiser the teacher; requires_grad stays unchanged.

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
def scale_lora(layers: list[BaseTunerLayer], scale: float) -> Iterator[None]:
    """Let the adapter that works have the adapter scale λ for a while.

    layers: all with an adapter
    """
    before = [dict(layer.scaling) for layer in layers]
    for layer in layers:
        layer.scale_layer(scale)
    try:
        yield
    finally:
        # not divided again, which would round
        for layer, scaling in zip(layers, before, strict=True):
            layer.scaling.update(scaling)


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
