"""Equal tokens at the end of a transformer's text, computed once.

Without T5 the stock pipeline of SD 3 appends 256 zeros to each text. Tokens of a text have no
positions, so equal ones stay equal through all blocks. One of them stands for all if attention
counts it as often, which is the logarithm of their number added to its logits: softmax weights are
exponentials. Predictions and gradients are equal to those of the whole text, except for rounding.
"""

import math
from functools import partial
from typing import Any

import torch
from diffusers import SD3Transformer2DModel
from diffusers.models.attention_processor import Attention, JointAttnProcessor2_0
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


class CountedLastToken(JointAttnProcessor2_0):
    """diffusers' joint attention, in which the text's last token counts `repeats` times."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        repeats: int = 1,
    ) -> Tensor | tuple[Tensor, Tensor]:
        # the second attention of a block reads no text
        if encoder_hidden_states is None or repeats == 1:
            return super().__call__(attn, hidden_states, encoder_hidden_states)
        picture = (attn.to_q, attn.to_k, attn.to_v)
        picture = _heads(attn.heads, hidden_states, picture, (attn.norm_q, attn.norm_k))
        text = (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)
        norms = (attn.norm_added_q, attn.norm_added_k)
        text = _heads(attn.heads, encoder_hidden_states, text, norms)
        query, key, value = (torch.cat(pair, dim=2) for pair in zip(picture, text, strict=True))
        # before softmax, so its exponential is the number
        dtype = torch.promote_types(query.dtype, torch.float32)
        added = query.new_zeros(1, 1, 1, key.shape[2], dtype=dtype)
        added[..., -1] = math.log(repeats)
        output = scaled_dot_product_attention(query, key, value, added)
        output = output.transpose(1, 2).flatten(2)
        of_picture, of_text = output.split(
            [hidden_states.shape[1], encoder_hidden_states.shape[1]], 1
        )
        if not attn.context_pre_only:
            of_text = attn.to_add_out(of_text)
        return attn.to_out[1](attn.to_out[0](of_picture)), of_text


def _heads(heads: int, states: Tensor, layers: tuple, norms: tuple) -> list[Tensor]:
    """Return query, key and value of each head, [n, heads, tokens, width]."""
    projected = [layer(states).unflatten(2, (heads, -1)).transpose(1, 2) for layer in layers]
    for i, norm in enumerate(norms):
        if norm is not None:
            projected[i] = norm(projected[i])
    return projected


def count_equal_tokens(transformer: SD3Transformer2DModel, text_tokens: int):
    """Let a transformer compute on a CPU all tokens after the first `text_tokens` as one.

    They must be equal. On a GPU it computes them all: the fastest attention there adds nothing to
    logits, and real pictures have many times as many tokens.
    """
    transformer.set_attn_processor(CountedLastToken())
    transformer.register_forward_pre_hook(partial(_cut, text_tokens), with_kwargs=True)


def _cut(
    text_tokens: int, transformer: SD3Transformer2DModel, args: tuple, options: dict[str, Any]
):
    # by position in this library, by name in the stock pipeline
    args = list(args)
    if len(args) > 1:
        context = args[1]
    else:
        context = options["encoder_hidden_states"]
    repeats = context.shape[1] - text_tokens
    if repeats < 2 or context.device.type != "cpu":
        return None
    context = context[:, : text_tokens + 1]
    if len(args) > 1:
        args[1] = context
    else:
        options = options | {"encoder_hidden_states": context}
    # diffusers passes these on to the attention of each block
    attention = options.get("joint_attention_kwargs") or {}
    return tuple(args), options | {"joint_attention_kwargs": attention | {"repeats": repeats}}
