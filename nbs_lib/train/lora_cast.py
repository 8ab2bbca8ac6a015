"""A LoRA in passes of low precision: its fp32 weights are cast once a pass, all at once.

An autocast would cast them layer by layer, and the norms' inputs and outputs too. Without one a
pass casts its inputs, these weights and its prediction, and in the backward pass their gradients.

In fp16 the loss scale is here as well: the gradient of a prediction is multiplied by it, and the
weights' gradients are divided by it when they are in fp32 again. The engine and its ZeRO stages
see ordinary gradients.
Source: mixed precision training, arXiv 1710.03740, sec. 3.2.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor

from ..models.lora.layers import active_lora


def replace_lora_passes(layers: list[BaseTunerLayer]):
    """Replace peft's passes by `lora_pass`. layers: LoRA or rsLoRA, without dropout."""
    for layer in layers:
        layer.cast_weights = {}
        layer.forward = MethodType(lora_pass, layer)


def has_lora_pass(layer: BaseTunerLayer) -> bool:
    """Return True if a layer passes by `lora_pass`."""
    return hasattr(layer, "cast_weights")


def lora_pass(layer: BaseTunerLayer, x: Tensor) -> Tensor:
    """Return W x + s B A x, as peft's layer does, with the weights that were cast for this pass."""
    result = layer.base_layer(x)
    if layer._disable_adapters:
        return result
    [adapter] = layer._active_adapter
    a, b = layer.lora_A[adapter], layer.lora_B[adapter]
    a_weight, b_weight = layer.cast_weights.get(adapter) or (a.weight, b.weight)
    change = _product(b, b_weight, _product(a, a_weight, x))
    scaling = layer.scaling[adapter]
    # a product by 1 changes no bit, and would be two operations a layer
    return result + (change if scaling == 1 else change * scaling)


def _product(matrix: torch.nn.Module, weight: Tensor, x: Tensor) -> Tensor:
    if isinstance(matrix, torch.nn.Conv2d):
        return matrix._conv_forward(x, weight, None)
    return torch.nn.functional.linear(x, weight)


class LossScale:
    """fp16's loss scale of one process.

    It doubles after GROWTH_INTERVAL passes in a row whose gradients are finite. If those of a pass
    are not, they count as zeros, and it halves. Nothing waits for a GPU.

    scale: a power of two, fp32 [1].
    growth: passes since it changed, int32 [1].
    """

    FIRST = 2.0**16
    GROWTH_INTERVAL = 2000

    def __init__(self, device: torch.device):
        """Begin as torch's own scaler does."""
        self.scale = torch.full([1], self.FIRST, device=device)
        self.growth = torch.zeros([1], dtype=torch.int32, device=device)

    def unscale(self, gradients: Tensor, scale: Tensor) -> Tensor:
        """Return gradients divided by the scale of their pass, or zeros; update the scale."""
        overflow = torch.zeros([1], device=gradients.device)
        # torch's own scaler is made of these two
        torch._amp_foreach_non_finite_check_and_unscale_([gradients], overflow, 1 / scale)
        interval = self.GROWTH_INTERVAL
        torch._amp_update_scale_(self.scale, self.growth, overflow, 2.0, 0.5, interval)
        return gradients.masked_fill_(overflow.bool(), 0)

    def state(self) -> dict[str, Tensor]:
        """Return the scale as a checkpoint holds it."""
        return {"scale": self.scale, "growth": self.growth}

    def load_state(self, state: dict[str, Tensor]):
        """Restore what `state` has returned."""
        self.scale.copy_(state["scale"])
        self.growth.copy_(state["growth"])


@contextmanager
def cast_lora(
    layers: list[BaseTunerLayer], dtype: torch.dtype, loss_scale: LossScale | None = None
) -> Iterator[Tensor | None]:
    """Let a pass compute with the weights of the active adapter in `dtype`.

    Yields the loss scale of the pass [1], None if there is none; see `ScaleGradient`.
    layers: all with an adapter, each with its own pass. After a pass with gradients the cast
        weights stay, because gradient checkpointing computes with them again.
    """
    # the scale may change before the backward pass of this one
    scale = loss_scale.scale.clone() if loss_scale and torch.is_grad_enabled() else None
    adapter = active_lora(layers)
    before = [layer.cast_weights.get(adapter) for layer in layers]
    weights = []
    for layer in layers:
        weights += [layer.lora_A[adapter].weight, layer.lora_B[adapter].weight]
    cast = CastWeights.apply(dtype, loss_scale, scale, *weights)
    _set_cast_weights(layers, adapter, zip(cast[::2], cast[1::2], strict=True))
    yield scale
    if not torch.is_grad_enabled():
        # the backward pass of an earlier pass may still need its own
        _set_cast_weights(layers, adapter, before)


def _set_cast_weights(layers: list[BaseTunerLayer], adapter: str, pairs: Any):
    for layer, pair in zip(layers, pairs, strict=True):
        layer.cast_weights[adapter] = pair


class CastWeights(torch.autograd.Function):
    """Tensors cast to another type, and their gradients back to fp32, by one copy each way."""

    @staticmethod
    def forward(
        ctx: Any,
        dtype: torch.dtype,
        loss_scale: LossScale | None,
        scale: Tensor | None,
        *weights: Tensor,
    ) -> tuple[Tensor, ...]:
        """Return the weights in another type."""
        ctx.loss_scale = loss_scale
        ctx.scale = scale
        ctx.shapes = [weight.shape for weight in weights]
        flat = torch.cat([weight.reshape(-1) for weight in weights])
        return _split(flat.to(dtype), ctx.shapes)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients in fp32."""
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients]).float()
        if ctx.scale is not None:
            flat = ctx.loss_scale.unscale(flat, ctx.scale)
        return None, None, None, *_split(flat, ctx.shapes)


class ScaleGradient(torch.autograd.Function):
    """A prediction in fp32, whose gradient is scaled before it is cast to fp16."""

    @staticmethod
    def forward(ctx: Any, scale: Tensor, prediction: Tensor) -> Tensor:
        """Return the prediction in fp32. scale: of the loss [1]."""
        ctx.scale = scale
        ctx.dtype = prediction.dtype
        return prediction.float()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        """Return the scaled gradient in the prediction's type."""
        return None, (gradient * ctx.scale).to(ctx.dtype)


class CastInput(torch.autograd.Function):
    """An input in fp16, whose gradient is divided by the loss scale when it is in fp32 again."""

    @staticmethod
    def forward(ctx: Any, scale: Tensor, x: Tensor) -> Tensor:
        """Return the input in fp16. scale: of the loss [1]."""
        ctx.scale = scale
        return x.to(torch.float16)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        """Return the gradient in fp32, zeros where it overflows."""
        gradient = gradient.float() / ctx.scale
        return None, torch.where(gradient.isfinite(), gradient, 0.0)


def _split(flat: Tensor, shapes: list[torch.Size]) -> tuple[Tensor, ...]:
    """Return a flat tensor's parts, of these shapes one after the other."""
    parts = flat.split([shape.numel() for shape in shapes])
    return tuple(part.view(shape) for part, shape in zip(parts, shapes, strict=True))
