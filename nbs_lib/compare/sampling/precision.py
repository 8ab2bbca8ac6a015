"""A denoiser that samples in bf16 or fp16, in a pipeline whose other parts stay in fp32.

Text encoders and VAE take a small share of the time, and SDXL's VAE overflows in fp16. The
scheduler's sums over the steps would lose more than a denoiser's passes do.
"""

from inspect import signature
from typing import Any

import torch
from diffusers import ModelMixin
from torch import Tensor
from torch.utils._pytree import tree_map_only

# not the timesteps: bf16 has no number between 992 and 996
LOWERED = ("sample", "hidden_states", "encoder_hidden_states", "pooled_projections")
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def in_precision(denoiser: ModelMixin, mixed_precision: str) -> ModelMixin:
    """Convert a denoiser, whose inputs and outputs stay in fp32; return it.

    mixed_precision: no, bf16 or fp16
    """
    if mixed_precision == "no":
        return denoiser
    denoiser.to(DTYPES[mixed_precision])
    denoiser.register_forward_pre_hook(_cast_inputs, with_kwargs=True)
    denoiser.register_forward_hook(_cast_output)
    return denoiser


def _cast_inputs(denoiser: ModelMixin, inputs: tuple, options: dict) -> tuple[tuple, dict]:
    # pipelines call a UNet by position, and a transformer by name
    call = signature(denoiser.forward).bind(*inputs, **options)
    for name in LOWERED:
        if isinstance(call.arguments.get(name), Tensor):
            call.arguments[name] = call.arguments[name].to(denoiser.dtype)
    return call.args, call.kwargs


def _cast_output(denoiser: ModelMixin, inputs: tuple, output: Any) -> Any:
    return tree_map_only(Tensor, Tensor.float, output)


def relative_difference(expected: Tensor, actual: Tensor) -> float:
    """Return the root mean square difference of two predictions, as a share of the first one's."""
    return float((actual - expected).norm() / expected.norm())
