"""The networks of a training: what is frozen, what is trained, and how they lie in memory."""

import copy
import ctypes
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from mmap import PAGESIZE
from typing import Any

import torch
from diffusers import ModelMixin, UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor
from torch.nn import Parameter
from torch.utils.checkpoint import checkpoint

from ..config import Train
from ..models import StableDiffusion
from ..models.lora.layers import activate_lora, active_lora, add_fake_score, add_lora, lora_layers
from ..models.weights.quantization import quantize
from .lora_cast import replace_lora_passes
from .objectives import OBJECTIVES

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Source: madvise(2).
MADV_PAGEOUT = 21


@dataclass
class Networks:
    """The networks of a training.

    denoiser: with all that is trained, in fp32.
    teacher_denoiser: a frozen copy that teaches, if there is no adapter to switch off, or None.
    learned: the parameters that are saved.
    fake_score: those of the adapter that is thrown away, [] if the objective has none.
    """

    denoiser: ModelMixin
    teacher_denoiser: ModelMixin | None
    learned: list[Parameter]
    fake_score: list[Parameter]

    @property
    def parameters(self) -> list[Parameter]:
        """Return all trained parameters."""
        return self.learned + self.fake_score


def build_networks(base: StableDiffusion, config: Train) -> Networks:
    """Return the networks of a training."""
    dtype = DTYPES[config.mixed_precision]
    teacher_denoiser = None
    fake_score = []
    if config.method == "full":
        denoiser = base.denoiser()
        if config.objective != "finetune" and config.teacher == "live":
            teacher_denoiser = copy.deepcopy(denoiser).to(dtype)
        denoiser.requires_grad_(True)
        learned = list(denoiser.parameters())
    else:
        denoiser = base.denoiser(dtype)
        if config.base_precision != "as_is":
            # before the adapter, whose own weights stay in fp32
            quantize(denoiser, config.base_precision)
        learned = add_lora(
            denoiser,
            rank=config.rank,
            alpha=config.alpha,
            seed=config.seed,
            targets=config.target_modules,
            method=config.method,
            dropout=config.lora_dropout,
        )
        if OBJECTIVES[config.objective].fake_score:
            fake_score = add_fake_score(denoiser, config.seed + 1)
        if config.casts_lora_once:
            replace_lora_passes(lora_layers(denoiser))
    if config.gradient_checkpointing:
        pass_again = partial(checkpoint_pass, lora_layers(denoiser))
        if config.compile == "whole":
            # such a graph computes again by itself, with the adapter that it was made with
            pass_again = partial(checkpoint, use_reentrant=False)
        denoiser.enable_gradient_checkpointing(pass_again)
    return Networks(denoiser.train(), teacher_denoiser, learned, fake_score)


def checkpoint_pass(layers: list[BaseTunerLayer], module: torch.nn.Module, *inputs: Any) -> Any:
    """Pass through a module whose activations are computed again in the backward pass.

    layers: all with an adapter. The second computation has the adapter that the first one had.
    """

    def contexts() -> tuple:
        # called in the forward pass: by the backward pass another adapter may be active
        return nullcontext(), activate_lora(layers, active_lora(layers))

    return checkpoint(module, *inputs, use_reentrant=False, context_fn=contexts)


def choose_attention(denoiser: ModelMixin, dtype: torch.dtype, device: str):
    """Use plain products for attention on a CPU in bf16, and `PlainAttention` on a GPU."""
    # forward and backward of the embedded UNet took 0.8 of the time with torch's own attention
    # joint attention has processors of its own
    if device == "cpu" and dtype == torch.bfloat16 and isinstance(denoiser, UNet2DConditionModel):
        denoiser.set_attn_processor(AttnProcessor())
    if device == "cpu":
        return
    for module in denoiser.modules():
        if isinstance(module, Attention) and _is_plain(module):
            module.set_processor(PlainAttention())


def _is_plain(attention: Attention) -> bool:
    """Return True if an attention has nothing but projections, as all have in Stable Diffusion."""
    norms = (attention.group_norm, attention.spatial_norm, attention.norm_q, attention.norm_k)
    # joint attention has added projections, of the text's side
    others = (
        attention.residual_connection,
        attention.norm_cross,
        attention.to_out[1].p,
        attention.added_kv_proj_dim,
    )
    return norms == (None,) * 4 and not any(others) and attention.rescale_output_factor == 1


class PlainAttention:
    """diffusers' AttnProcessor2_0 without its division by 1 and its dropout of 0.

    These are two operations a layer on a GPU, and two more in the backward pass.
    """

    def __call__(
        self,
        attention: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: None = None,
    ) -> Tensor:
        """Return the answer of an attention.

        hidden_states: [n, tokens, width].
        encoder_hidden_states: text [n, tokens, width], None for self-attention.
        """
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        layers = (
            (attention.to_q, hidden_states),
            (attention.to_k, context),
            (attention.to_v, context),
        )
        heads = [layer(x).unflatten(-1, (attention.heads, -1)) for layer, x in layers]
        # a flash kernel, which takes no memory for the products
        answer = torch.nn.functional.scaled_dot_product_attention(
            *(head.transpose(1, 2) for head in heads)
        )
        return attention.to_out[0](answer.transpose(1, 2).flatten(2))


def set_memory_format(denoiser: ModelMixin):
    """Lay out the frozen convolutions as channels_last, which makes passes faster."""
    for module in denoiser.modules():
        # only the frozen ones: DeepSpeed cannot flatten channels_last gradients
        if isinstance(module, torch.nn.Conv2d) and not module.weight.requires_grad:
            before = module.weight.data
            module.to(memory_format=torch.channels_last)
            if before.data_ptr() != module.weight.data_ptr():
                page_out(before)


def page_out(tensor: Tensor):
    """Let the system take back the memory of a tensor that is no longer read.

    Source: madvise(2), MADV_PAGEOUT.
    """
    # a base's weights are a mapped file: all its pages that were read stay while one weight is in
    # use. Nothing of any other memory is lost, because it can be read again.
    if tensor.device.type != "cpu" or sys.platform != "linux":
        return
    # only the pages that belong to it alone
    first = -(-tensor.data_ptr() // PAGESIZE) * PAGESIZE
    end = (tensor.data_ptr() + tensor.nbytes) // PAGESIZE * PAGESIZE
    if first < end:
        length = ctypes.c_size_t(end - first)
        ctypes.CDLL(None).madvise(ctypes.c_void_p(first), length, MADV_PAGEOUT)
