"""Frozen weights in eight or four bits, which each layer restores while it works.

A layer saves its packed weight for the backward pass and restores it there again. The weight-only
layers of torchao save the restored one instead, so that a training with them needs as much memory
as before.
Source: int8 with a scale for each output channel, arXiv 2208.07339, sec. 2; nf4, arXiv 2305.14314,
sec. 3.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import Conv2d, Linear, Parameter
from torch.nn import functional as F

# Largest value of each format, to which the largest weight of a row is scaled.
LARGEST = {"int8": 127.0, "fp8": 448.0, "nf4": 1.0}
# Weights with one scale in nf4, as in its paper.
BLOCK = 64
# The levels of nf4: quantiles of a normal distribution, between -1 and 1.
NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
# The first and the last layer of UNets and transformers: small, and the whole picture passes.
UNPACKED_LAYERS = ("conv_in", "conv_out", "pos_embed.proj", "proj_out")


def quantize(denoiser: torch.nn.Module, precision: str):
    """Pack the weights of a denoiser's linear layers and convolutions, layer by layer.

    Layers whose rows are no multiple of `BLOCK` stay as they are, as do `UNPACKED_LAYERS`.

    precision: int8, fp8 or nf4
    """
    for name, layer in denoiser.named_modules():
        divisible = _is_supported(layer) and layer.weight[0].numel() % BLOCK == 0
        if name in UNPACKED_LAYERS or not divisible:
            continue
        weight, scale = pack(layer.weight.data, precision)
        # in place: a new layer would be drawn first, and other modules refer to this one
        layer.__class__ = QuantizedLinear if isinstance(layer, Linear) else QuantizedConv2d
        layer.shape = layer.weight.shape
        layer.precision = precision
        layer.weight = Parameter(weight, requires_grad=False)
        layer.scale = Parameter(scale, requires_grad=False)


def _is_supported(layer: torch.nn.Module) -> bool:
    # other classes have other passes
    return type(layer) is Linear or (type(layer) is Conv2d and layer.padding_mode == "zeros")


def pack(weight: Tensor, precision: str) -> tuple[Tensor, Tensor]:
    """Return a weight [out, ...] as whole bytes, and its scales fp32.

    The scales are [out, 1, ...], or [out, blocks, 1] for nf4, whose bytes hold two weights each.
    """
    rows = weight.float()
    if precision == "nf4":
        rows = rows.reshape(len(rows), -1, BLOCK)
    dims = [-1] if precision == "nf4" else list(range(1, rows.ndim))
    largest = rows.abs().amax(dims, keepdim=True).clamp_min(1e-12)
    # rounded up to bf16, in which most passes restore the weight: no product is rounded twice
    scale = (largest / LARGEST[precision] * (1 + 2**-8)).bfloat16().float()
    values = rows / scale
    if precision == "int8":
        return values.round().to(torch.int8), scale
    if precision == "fp8":
        # as bytes, because gloo sends no fp8
        return values.to(torch.float8_e4m3fn).view(torch.uint8), scale
    levels = torch.tensor(NF4, device=weight.device)
    codes = torch.bucketize(values, (levels[1:] + levels[:-1]) / 2).to(torch.uint8).flatten(1)
    packed = codes[:, ::2] * 16 + codes[:, 1::2]
    # as many dimensions as the weight had, by which peft knows a convolution
    return packed.view(*packed.shape, *[1] * (weight.ndim - 2)), scale


def unpack(
    packed: Tensor, scale: Tensor, precision: str, shape: torch.Size, dtype: torch.dtype
) -> Tensor:
    """Return the weight that `pack` packed, in a type of floats."""
    if precision == "int8":
        return packed.to(dtype) * scale.to(dtype)
    if precision == "fp8":
        return packed.view(torch.float8_e4m3fn).to(dtype) * scale.to(dtype)
    levels = torch.tensor(NF4, dtype=dtype, device=packed.device)
    codes = torch.stack([packed >> 4, packed & 15], dim=2).flatten(1)
    values = levels[codes.int()].view(len(packed), -1, BLOCK)
    return (values * scale.to(dtype)).view(shape)


class FrozenProduct(torch.autograd.Function):
    """The pass of a layer with a packed weight, which has no gradient itself."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, packed: Tensor, scale: Tensor, layer: torch.nn.Module):
        """Return the layer's output for x, in the type of x."""
        ctx.save_for_backward(packed, scale)
        ctx.layer = layer
        ctx.input_shape = x.shape
        weight = unpack(packed, scale, layer.precision, layer.shape, x.dtype)
        bias = None if layer.bias is None else layer.bias.to(x.dtype)
        return layer.product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple:
        """Return the gradient of x."""
        layer = ctx.layer
        weight = unpack(*ctx.saved_tensors, layer.precision, layer.shape, gradient.dtype)
        return layer.input_gradient(ctx.input_shape, weight, gradient), None, None, None


def _restored_product(layer: torch.nn.Module, x: Tensor) -> Tensor:
    device = x.device.type
    # autocast does not reach into the function
    if torch.is_autocast_enabled(device):
        x = x.to(torch.get_autocast_dtype(device))
    return FrozenProduct.apply(x, layer.weight, layer.scale, layer)


class QuantizedLinear(Linear):
    """A linear layer with a packed weight."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the output, in the type of the autocast or of x."""
        return _restored_product(self, x)

    def product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the output with a restored weight."""
        return F.linear(x, weight, bias)

    def input_gradient(self, shape: torch.Size, weight: Tensor, gradient: Tensor) -> Tensor:
        """Return the gradient of an input of this shape."""
        return gradient @ weight


class QuantizedConv2d(Conv2d):
    """A convolution with a packed weight, or with a plain one if it has no precision."""

    precision = ""

    def forward(self, x: Tensor) -> Tensor:
        """Return the output, in the type of the autocast or of x."""
        # peft makes the LoRA's convolutions of the class of the layer that they are for
        return _restored_product(self, x) if self.precision else super().forward(x)

    def product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the output with a restored weight."""
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def input_gradient(self, shape: torch.Size, weight: Tensor, gradient: Tensor) -> Tensor:
        """Return the gradient of an input of this shape."""
        options = (self.stride, self.padding, self.dilation, self.groups)
        return torch.nn.grad.conv2d_input(shape, weight, gradient, *options)
