"""The picture-book's CLIP as a judge: it ranks a picture's caption among near misses."""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import CLIPModel, CLIPTokenizer

from ..images.convert import to_tensor
from .captions import Caption, near_miss_choices


@torch.no_grad()
def caption_ranked_first(
    images: np.ndarray,
    captions: Sequence[Caption],
    clip: CLIPModel,
    tokenizer: CLIPTokenizer,
    batch: int = 64,
) -> torch.Tensor:
    """Return, for each picture, whether CLIP ranks its caption first of 16 (R@1), bool [n].

    The others are near misses, so a picture with one wrong value fails.

    images: uint8 [n, h, w, 3]
    """
    results = []
    for start in range(0, len(captions), batch):
        part = captions[start : start + batch]
        x = clip_pixels(images[start : start + batch], clip)
        choices = [text for caption in part for text in near_miss_choices(caption)]
        ids = tokenizer(choices, padding="max_length", truncation=True, return_tensors="pt")
        image = features(clip.get_image_features(pixel_values=x.to(clip.device)))  # [n, d]
        text = features(clip.get_text_features(input_ids=ids.input_ids.to(clip.device)))
        text = text.unflatten(0, (len(part), -1))  # [n, 16, d]
        scores = torch.einsum("nd,ncd->nc", image, text)
        # the caption is the first choice
        results.append(scores.argmax(1).cpu() == 0)
    return torch.cat(results)


def clip_pixels(images: np.ndarray, clip: CLIPModel) -> torch.Tensor:
    """Return pictures as the picture-book's CLIP takes them: fp32 [n, 3, side, side] in [-1, 1].

    images: uint8 [n, h, w, 3]
    """
    x = to_tensor(images)
    side = clip.config.vision_config.image_size
    if x.shape[2:] == (side, side):
        return x
    return torch.nn.functional.interpolate(x, (side, side), mode="area")


def features(output) -> torch.Tensor:
    """Return CLIP's features on the unit sphere.

    output: of `get_image_features` or `get_text_features`
    """
    # transformers returned a tensor before version 5, and an output object since
    return torch.nn.functional.normalize(getattr(output, "pooler_output", output), dim=-1)
