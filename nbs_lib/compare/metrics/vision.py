"""A vision model, whose features say how alike two pictures are."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import AutoImageProcessor, AutoModel, PreTrainedModel

from ...models.checks.headers import FileError, first_line
from ...models.model_folder import find_model_folder, load_model, load_part

BATCH = 64


class VisionModelError(ValueError):
    """A vision model that cannot be used."""


@dataclass(frozen=True)
class VisionModel:
    """A frozen vision model with what prepares its pictures."""

    name: str
    model: PreTrainedModel
    processor: Any  # an image processor of transformers

    def image_features(self, images: np.ndarray) -> torch.Tensor:
        """Return features [n, d] on the unit sphere of pictures uint8 [n, h, w, 3]."""
        return torch.nn.functional.normalize(self.pooled(images), dim=-1)

    @torch.no_grad()
    def pooled(self, images: np.ndarray) -> torch.Tensor:
        """Return features [n, d] as the model gives them of pictures uint8 [n, h, w, 3]."""
        batches = []
        for start in range(0, len(images), BATCH):
            # in batches, which bound the memory
            batch = list(images[start : start + BATCH])
            pixels = self.processor(batch, return_tensors="pt", input_data_format="channels_last")
            pooled = self.model(pixel_values=pixels.pixel_values).pooler_output
            # convolutional models keep the two axes that they pool over
            batches.append(pooled.flatten(1))
        return torch.cat(batches)


def load_vision_model(name: str, parameter: str = "features") -> VisionModel:
    """Return the vision model of a folder in transformers' layout or of a hub id, in fp32.

    name: the folder, a relative one starts at the project; or the hub id. Its weights are
        safetensors, and the model gives one vector for a picture (`pooler_output`), as DINOv2 and
        ViT do.
    parameter: the one that names it, for errors
    Errors: VisionModelError, with what to do.
    """
    try:
        folder = find_model_folder(name)
        model = load_model(AutoModel, folder)
        processor = load_part(AutoImageProcessor, folder, backend="pil")
    except FileError as failure:
        raise _error(parameter, name, str(failure)) from failure
    vision = VisionModel(name, model, processor)
    _check_features(vision, parameter)
    return vision


def _check_features(vision: VisionModel, parameter: str):
    """Check that a model gives a vector for a picture, before any picture is sampled."""
    try:
        vision.image_features(np.zeros((1, 64, 64, 3), np.uint8))
    # a model of text takes no pixels, and others pool nothing
    except (AttributeError, TypeError, ValueError, RuntimeError) as failure:
        problem = f"it gives no features of a picture ({first_line(failure)})"
        raise _error(parameter, vision.name, problem) from failure


def _error(parameter, name, problem):
    return VisionModelError(
        f"{parameter} {name!r}: {problem}; give the folder or hub id of a vision model, such as "
        "DINOv2, with its config.json, preprocessor_config.json and model.safetensors"
    )
