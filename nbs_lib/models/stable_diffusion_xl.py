"""SDXL: two text encoders, pooled text, and a UNet that takes the pictures' size."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from .base_folder import Encoders, TextEmbeddings, token_ids
from .components import INDEX
from .stable_diffusion import StableDiffusion

N_TIME_IDS = 6  # original size, the crop's top left corner, target size: two numbers each


class StableDiffusionXL(StableDiffusion):
    """A base on disk, SDXL.

    Its second text encoder also gives a pooled embedding, and its UNet takes the pictures' size.

    Source: arXiv 2307.01952, sec. 2.1 and 2.2.
    """

    parts = (*StableDiffusion.parts, "text_encoder_2", "tokenizer_2")
    pipeline_class = StableDiffusionXLPipeline
    _addition_type = "text_time"
    classes = StableDiffusion.classes | {"text_encoder_2": CLIPTextModelWithProjection}

    def _files(self) -> set[Path]:
        # the index has a setting of the empty prompt, which changes the embeddings
        index = self.folder / INDEX
        return super()._files() | ({index} if index.is_file() else set())

    def requirements(self, settings: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
        yield from super().requirements(settings)
        pooled = settings["text_encoder_2"].projection_dim
        time = settings["unet"]["addition_time_embed_dim"]
        width = pooled + N_TIME_IDS * time
        yield "unet", "projection_class_embeddings_input_dim", width

    def _text_width(self, settings: dict[str, Any]) -> int:
        return super()._text_width(settings) + settings["text_encoder_2"].hidden_size

    def text_encoder_2(self, dtype: torch.dtype = torch.float32) -> CLIPTextModelWithProjection:
        """Load the second text encoder."""
        return self._load("text_encoder_2", dtype)

    def tokenizer_2(self) -> CLIPTokenizer:
        """Load the second tokenizer."""
        return self.tokenizer_of("tokenizer_2")

    def text_encoders(self) -> Encoders:
        return [*super().text_encoders(), (self.tokenizer_2(), self.text_encoder_2())]

    @torch.no_grad()
    def encode_prompt(self, texts: list[str], encoders: Encoders) -> TextEmbeddings:
        """Return the second to last hidden states of both encoders, concatenated.

        pooled is the second encoder's projection.
        """
        outputs = []
        for tokenizer, encoder in encoders:
            ids = token_ids(texts, tokenizer).to(encoder.device)
            outputs.append(encoder(ids, output_hidden_states=True))
        # the UNet was trained on these, without the last layer's norm
        context = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        return TextEmbeddings(context, outputs[-1].text_embeds)

    def encode_negative_prompt(self, encoders: Encoders, negative: str = "") -> TextEmbeddings:
        """Return what the stock pipeline guides away from, n = 1.

        negative: the negative prompt; "" for zeros, or for the empty prompt if model_index.json
            says so
        """
        text = super().encode_negative_prompt(encoders, negative)
        if negative or not self._zeros_for_empty:
            return text
        return TextEmbeddings(*map(torch.zeros_like, text))

    def random_text(self, n: int, tokens: int, generator: torch.Generator) -> TextEmbeddings:
        unet = self._settings("unet/config.json")
        time_width = N_TIME_IDS * unet["addition_time_embed_dim"]
        width = unet["projection_class_embeddings_input_dim"] - time_width
        context = super().random_text(n, tokens, generator).context
        return TextEmbeddings(context, torch.randn(n, width, generator=generator))

    def added_cond_kwargs(
        self, pooled: torch.Tensor, latents: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Return text_embeds [n, p] and time_ids [n, 6]."""
        # training pictures are neither enlarged nor cropped for the UNet: original and target size
        # agree
        size = [side * self.vae_scale_factor for side in latents.shape[-2:]]
        time_ids = pooled.new_tensor([*size, 0, 0, *size])
        return {"text_embeds": pooled, "time_ids": time_ids.repeat(len(pooled), 1)}

    def _shift_and_scale(self, vae: AutoencoderKL) -> tuple:
        """Return mean and factor for each channel if the VAE's settings have them."""
        config = vae.config
        if config.latents_mean is None or config.latents_std is None:
            return super()._shift_and_scale(vae)
        mean = torch.tensor(config.latents_mean, device=vae.device).view(1, -1, 1, 1)
        std = torch.tensor(config.latents_std, device=vae.device).view(1, -1, 1, 1)
        return mean, config.scaling_factor / std

    @property
    def _zeros_for_empty(self) -> bool:
        # a folder may have its parts alone; the stock pipeline then takes its own default
        index = self._settings(INDEX) if (self.folder / INDEX).is_file() else {}
        return index.get("force_zeros_for_empty_prompt", True)

    def _pipeline_options(self, dtype: torch.dtype) -> dict[str, Any]:
        return {
            "text_encoder_2": self.text_encoder_2(dtype),
            "tokenizer_2": self.tokenizer_2(),
            "force_zeros_for_empty_prompt": self._zeros_for_empty,
            # it would change the pixels that are compared
            "add_watermarker": False,
        }
