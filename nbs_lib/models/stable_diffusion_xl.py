"""SDXL: two text encoders, pooled text, and a UNet that is told the size of the pictures."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from .components import INDEX
from .stable_diffusion import Encoders, StableDiffusion, TextEmbeddings, token_ids


class StableDiffusionXL(StableDiffusion):
    """SDXL: two text encoders, of which the second also sums a text up, and a UNet that is told the pictures' size.

    Source: arXiv 2307.01952, sec. 2.1 and 2.2.
    """

    parts = (*StableDiffusion.parts, "text_encoder_2", "tokenizer_2")
    pipeline_class = StableDiffusionXLPipeline
    _added_kind = "text_time"
    classes = StableDiffusion.classes | {"text_encoder_2": CLIPTextModelWithProjection}

    def _files(self) -> set[Path]:
        return super()._files() | {path for path in [self.folder / INDEX] if path.is_file()}

    def needs(self, settings: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
        yield from super().needs(settings)
        pooled, times = (
            settings["text_encoder_2"].projection_dim,
            settings["unet"]["addition_time_embed_dim"],
        )
        yield "unet", "projection_class_embeddings_input_dim", pooled + 6 * times

    def _text_width(self, settings: dict[str, Any]) -> int:
        return super()._text_width(settings) + settings["text_encoder_2"].hidden_size

    def text_encoder_2(self, dtype: torch.dtype = torch.float32) -> CLIPTextModelWithProjection:
        return self._load("text_encoder_2", dtype)

    def tokenizer_2(self) -> CLIPTokenizer:
        return self.tokenizer_of("tokenizer_2")

    def text_encoders(self) -> Encoders:
        return [*super().text_encoders(), (self.tokenizer_2(), self.text_encoder_2())]

    @torch.no_grad()
    def encode_prompt(self, texts: list[str], encoders: Encoders) -> TextEmbeddings:
        """The last hidden state but one of both encoders, side by side; pooled: the second one's projection."""
        read = [
            encoder(token_ids(texts, tokenizer).to(encoder.device), output_hidden_states=True)
            for tokenizer, encoder in encoders
        ]
        return TextEmbeddings(
            torch.cat([each.hidden_states[-2] for each in read], dim=-1), read[-1].text_embeds
        )

    def encode_negative_prompt(self, encoders: Encoders, negative: str = "") -> TextEmbeddings:
        """Without a negative prompt it is zeros, unless model_index.json says that it is the empty prompt here too."""
        text = super().encode_negative_prompt(encoders, negative)
        return (
            text
            if negative or not self._zeros_for_empty
            else TextEmbeddings(*map(torch.zeros_like, text))
        )

    def random_text(self, n: int, tokens: int, generator: torch.Generator) -> TextEmbeddings:
        unet = self._settings("unet/config.json")
        width = unet["projection_class_embeddings_input_dim"] - 6 * unet["addition_time_embed_dim"]
        return (
            super()
            .random_text(n, tokens, generator)
            ._replace(pooled=torch.randn(n, width, generator=generator))
        )

    def added_cond_kwargs(
        self, pooled: torch.Tensor, latents: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """text_embeds [n, p], and time_ids [n, 6]: original size, the crop's top left corner, target size."""
        size = [side * self.vae_scale_factor for side in latents.shape[-2:]]
        return {
            "text_embeds": pooled,
            "time_ids": pooled.new_tensor([*size, 0, 0, *size]).repeat(len(pooled), 1),
        }

    def _shift_and_scale(self, vae: AutoencoderKL) -> tuple:
        """By channel, where the VAE's settings say mean and deviation of its latents."""
        told = vae.config
        if told.latents_mean is None or told.latents_std is None:
            return super()._shift_and_scale(vae)
        mean, std = (
            torch.tensor(each, device=vae.device).view(1, -1, 1, 1)
            for each in (told.latents_mean, told.latents_std)
        )
        return mean, told.scaling_factor / std

    @property
    def _zeros_for_empty(self) -> bool:
        index = self._settings(INDEX) if (self.folder / INDEX).is_file() else {}
        return index.get("force_zeros_for_empty_prompt", True)

    def _rest_of_pipeline(self, dtype: torch.dtype) -> dict[str, Any]:
        return {
            "text_encoder_2": self.text_encoder_2(dtype),
            "tokenizer_2": self.tokenizer_2(),
            "force_zeros_for_empty_prompt": self._zeros_for_empty,
            "add_watermarker": False,
        }
