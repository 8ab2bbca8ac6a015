"""Texts as a denoiser takes them, and the tokens that their encoders read."""

from typing import NamedTuple

import torch
from transformers import (
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5EncoderModel,
    T5TokenizerFast,
)

Tokenizer = CLIPTokenizer | T5TokenizerFast
# The text encoders of a base in their order, each with its tokenizer.
Encoders = list[tuple[Tokenizer, CLIPTextModel | CLIPTextModelWithProjection | T5EncoderModel]]


class TextEmbeddings(NamedTuple):
    """Texts as a denoiser takes them."""

    context: torch.Tensor  # [n, tokens, width]
    pooled: torch.Tensor | None  # [n, p]; None in a family without

    def to(self, device: torch.device | str) -> "TextEmbeddings":
        """Return the embeddings on a device."""
        pooled = None if self.pooled is None else self.pooled.to(device)
        return TextEmbeddings(self.context.to(device), pooled)


def token_ids(texts: list[str], tokenizer: Tokenizer, length: int = 0) -> torch.Tensor:
    """Return token ids [n, tokens], padded and truncated.

    length: tokens; 0 for as many as the text encoder reads
    """
    return tokenizer(
        texts,
        padding="max_length",
        max_length=length or tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids
