"""A CLIP to score pictures with: the embedded base's own, a local folder, or a hub id."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from ...files import ROOT
from ...models import StableDiffusion, embedded_clip, load_clip_folder
from ...picturebook.caption_ranking import clip_pixels, features

BATCH = 64


class ClipError(ValueError):
    """A CLIP that cannot be used: what was given, what is wrong with it, what to do."""


@dataclass(frozen=True)
class Clip:
    """processor: of pictures; None for the embedded CLIP, which takes them as they are, 64 pixels a side, in [-1, 1]."""

    name: str
    model: CLIPModel
    tokenizer: CLIPTokenizer
    processor: CLIPImageProcessorPil | None

    @torch.no_grad()
    def of_images(self, images: np.ndarray) -> torch.Tensor:
        """Features of pictures uint8 [n, h, w, 3] on the unit sphere: [n, d]."""
        parts = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
        return torch.cat(
            [
                features(self.model.get_image_features(pixel_values=self._pixels(part)))
                for part in parts
            ]
        )

    @torch.no_grad()
    def of_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Features of texts on the unit sphere: [n, d]."""
        parts = [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]
        return torch.cat(
            [features(self.model.get_text_features(**self._words(part))) for part in parts]
        )

    def _pixels(self, images: np.ndarray) -> torch.Tensor:
        if self.processor:
            return self.processor(list(images), return_tensors="pt").pixel_values
        return clip_pixels(images, self.model)

    def _words(self, texts: Sequence[str]) -> dict[str, Any]:
        told = self.tokenizer(
            list(texts), padding="max_length", truncation=True, return_tensors="pt",
            max_length=self.model.config.text_config.max_position_embeddings,
        )  # fmt: skip
        # the embedded text tower was trained without a mask
        return {"input_ids": told.input_ids} | (
            {"attention_mask": told.attention_mask} if self.processor else {}
        )


def load_clip(name: str, base: StableDiffusion) -> Clip | None:
    """The CLIP of that name: "auto" is the embedded one for the embedded base, and none for any other; "none", "embedded", a
    folder with a CLIPModel, its tokenizer and its preprocessor, or a hub id of such. Errors: ClipError."""
    if name == "none" or name == "auto" and base.name != "embedded":
        return None
    if name in ("auto", "embedded"):
        from ...models import find_base

        return Clip("embedded", embedded_clip(), find_base("embedded").tokenizer(), None)
    folder = ROOT / Path(name).expanduser()
    place: Any = folder if folder.is_dir() else name
    if not folder.is_dir() and (name.count("/") != 1 or name.startswith((".", "~", "/"))):
        raise ClipError(
            f"clip {name!r}: there is no such folder; give auto, none, embedded, a folder or a hub id"
        )
    try:
        model = load_clip_folder(place)
        return Clip(
            name,
            model,
            CLIPTokenizer.from_pretrained(place),
            CLIPImageProcessorPil.from_pretrained(place),
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as failure:
        said = str(failure).strip().splitlines()[0]
        raise ClipError(
            f"clip {name!r}: it does not load ({said}); give a folder or a hub id of a CLIPModel"
        ) from failure
