"""The CLIP that scores pictures: the embedded base's own, a local folder, or a hub id."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from ...files import ROOT
from ...models import StableDiffusion, embedded_clip, find_base, load_clip_folder
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
    folder = ROOT / Path(name).expanduser()
    is_hub_id = name.count("/") == 1 and not name.startswith((".", "~", "/"))
    # refused here, or the hub would be asked for a mistyped folder
    if not folder.is_dir() and not is_hub_id:
        raise ClipError(
            f"{parameter} {name!r}: there is no such folder; give {others}a folder or a hub id"
        )
    source = folder if folder.is_dir() else name
    try:
        model = load_clip_folder(source)
        tokenizer = CLIPTokenizer.from_pretrained(source)
        processor = CLIPImageProcessorPil.from_pretrained(source)
    # the loaders raise errors of many types for files that are damaged or missing
    except (OSError, ValueError, RuntimeError, SafetensorError) as failure:
        # the first line: the rest is advice for another library's users
        reason = str(failure).strip().splitlines()[0]
        raise ClipError(
            f"{parameter} {name!r}: it does not load ({reason}); give a folder or a hub id of a "
            "CLIPModel"
        ) from failure
    return Clip(name, model, tokenizer, processor)
