"""The CLIP that scores pictures: the embedded base's own, a local folder, or a hub id."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from ...models import StableDiffusion, embedded_clip, find_base
from ...models.checks.headers import FileError
from ...models.model_folder import find_model_folder, load_model, load_part
from ...picturebook.caption_ranking import clip_pixels, features
from ...project import EMBEDDED_BASES

BATCH = 64


class ClipError(ValueError):
    """A CLIP that cannot be used."""


@dataclass(frozen=True)
class Clip:
    """A CLIP with what prepares its inputs."""

    name: str
    model: CLIPModel
    tokenizer: CLIPTokenizer
    # prepares pictures; None for the embedded CLIP, which needs none
    processor: CLIPImageProcessorPil | None

    @torch.no_grad()
    def image_features(self, images: np.ndarray) -> torch.Tensor:
        """Return features [n, d] on the unit sphere of pictures uint8 [n, h, w, 3]."""
        batches = []
        for start in range(0, len(images), BATCH):
            # in batches, which bound the memory
            x = self._pixels(images[start : start + BATCH])
            batches.append(features(self.model.get_image_features(pixel_values=x)))
        return torch.cat(batches)

    @torch.no_grad()
    def text_features(self, texts: Sequence[str]) -> torch.Tensor:
        """Return features [n, d] on the unit sphere of texts."""
        batches = []
        for start in range(0, len(texts), BATCH):
            tokens = self._tokens(texts[start : start + BATCH])
            batches.append(features(self.model.get_text_features(**tokens)))
        return torch.cat(batches)

    def _pixels(self, images):
        if self.processor:
            return self.processor(list(images), return_tensors="pt").pixel_values
        return clip_pixels(images, self.model)

    def _tokens(self, texts):
        tokens = self.tokenizer(
            list(texts),
            padding="max_length",
            truncation=True,
            return_tensors="pt",
            max_length=self.model.config.text_config.max_position_embeddings,
        )
        inputs = {"input_ids": tokens.input_ids}
        if self.processor:
            # not for the embedded CLIP: its text tower was trained without a mask
            inputs["attention_mask"] = tokens.attention_mask
        return inputs


def load_clip(name: str, base: StableDiffusion) -> Clip | None:
    """Return the CLIP of a name, None for "none".

    name: "auto" for the embedded CLIP with an embedded base and none with any other, "none",
        "embedded", or the folder or hub id of a CLIPModel with its tokenizer and preprocessor
    Errors: ClipError, with what to do.
    """
    if name == "auto":
        # the embedded CLIP knows the picture-book alone, and says little of other bases
        name = "embedded" if base.name in EMBEDDED_BASES else "none"
    if name == "none":
        return None
    if name == "embedded":
        return Clip("embedded", embedded_clip(), find_base("embedded").tokenizer(), None)
    return load_scoring_clip(name, "clip", "auto, none, embedded, ")


def load_scoring_clip(name: str, parameter: str, others: str = "") -> Clip:
    """Return the CLIPModel of a folder or a hub id, with its tokenizer and preprocessor.

    parameter: the one that names it, for errors
    others: what else that parameter allows, for errors
    Errors: ClipError, with what to do.
    """
    try:
        folder = find_model_folder(name)
        model = load_model(CLIPModel, folder, attention="sdpa")
        tokenizer = load_part(CLIPTokenizer, folder)
        processor = load_part(CLIPImageProcessorPil, folder)
    except FileError as failure:
        raise ClipError(
            f"{parameter} {name!r}: {failure}; give {others}the folder or hub id of a CLIPModel "
            "with its tokenizer and preprocessor"
        ) from failure
    return Clip(name, model, tokenizer, processor)
