"""A UNet that samples in bf16 or fp16, in a pipeline whose other parts stay in fp32.

Text encoders and VAE take a small share of the time, and SDXL's VAE overflows in fp16. The
scheduler's sums over the steps would lose more than a UNet's passes do.
"""

from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor
from torch.utils._pytree import tree_map_only

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def in_precision(unet: UNet2DConditionModel, mixed_precision: str) -> UNet2DConditionModel:
    """Convert a UNet, whose inputs and outputs stay in fp32; return it.

    mixed_precision: no, bf16 or fp16
    """
    if mixed_precision == "no":
        return unet
    unet.to(DTYPES[mixed_precision])
    unet.register_forward_pre_hook(_cast_inputs, with_kwargs=True)
    unet.register_forward_hook(_cast_output)
    return unet


def _cast_inputs(unet: UNet2DConditionModel, inputs: tuple, options: dict) -> tuple[tuple, dict]:
    latents, *others = inputs
    # not the timesteps: bf16 has no number between 992 and 996
    if "encoder_hidden_states" in options:
        context = options["encoder_hidden_states"].to(unet.dtype)
        options = options | {"encoder_hidden_states": context}
    return (latents.to(unet.dtype), *others), options


def _cast_output(unet: UNet2DConditionModel, inputs: tuple, output: Any) -> Any:
    return tree_map_only(Tensor, Tensor.float, output)


def relative_difference(expected: Tensor, actual: Tensor) -> float:
    """Return the root mean square difference of two predictions, as a share of the first one's."""
    return float((actual - expected).norm() / expected.norm())
