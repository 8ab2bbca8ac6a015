"""Engines: what evaluates a contender's UNet. Their pictures are the same, for each is held to eager's predictions.

eager      the UNet as it is
compile    torch.compile, of the blocks that a UNet repeats: as fast, and compiled in a fraction of the time
deepspeed  deepspeed.init_inference. Its injected kernels are for pipelines in fp16 only; a comparison is sampled in fp32,
           and so goes without
"""

import logging

import torch
from diffusers import UNet2DConditionModel

from ...models import StableDiffusion
from ...models._torch_fixes import quote_torch_libraries
from ...models.lora_verification import predict_fixed_noise

AGREE = 1e-3
"""The largest difference from eager's predictions on fixed noise, as a share of the largest prediction."""


def on_engine(unet: UNet2DConditionModel, engine: str, base: StableDiffusion) -> torch.nn.Module:
    """The UNet of a base's family, evaluated by an engine from now on. Errors: RuntimeError where it disagrees with eager."""
    if engine == "eager":
        return unet
    eager = predict_fixed_noise(unet, base)
    if engine == "compile":
        quote_torch_libraries()
        unet.compile_repeated_blocks(dynamic=True)
    else:
        unet = _deepspeed(unet)
    apart, largest = (
        float((predict_fixed_noise(unet, base) - eager).abs().max()),
        float(eager.abs().max()),
    )
    if not apart <= AGREE * largest:
        raise RuntimeError(
            f"engine {engine!r}: its predictions are {apart:.2g} of {largest:.2g} from eager's; allowed is a share of "
            f"{AGREE:g}. Leave it out, or take another version of it"
        )
    return unet


def _deepspeed(unet: UNet2DConditionModel) -> torch.nn.Module:
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    import deepspeed

    return deepspeed.init_inference(unet, dtype=unet.dtype).module
