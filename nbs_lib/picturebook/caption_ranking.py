"""The judge of pictures of the picture-book: its CLIP, asked to tell a caption from its near misses."""

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
    """For each picture, whether CLIP scores its caption highest among the caption and 15 near misses: bool [n].

    images: uint8 [n, h, w, 3]. A picture that got one named value wrong fails.
    """
    first = []
    for start in range(0, len(captions), batch):
        asked = captions[start : start + batch]
        x = clip_pixels(images[start : start + batch], clip)
        choices = [text for caption in asked for text in near_miss_choices(caption)]
        ids = tokenizer(
            choices, padding="max_length", truncation=True, return_tensors="pt"
        ).input_ids
        seen = features(clip.get_image_features(pixel_values=x.to(clip.device)))  # [n, d]
        said = features(clip.get_text_features(input_ids=ids.to(clip.device)))  # [n · 16, d]
        scores = torch.einsum("nd,ncd->nc", seen, said.unflatten(0, (len(asked), -1)))
        first.append(scores.argmax(1).cpu() == 0)
    return torch.cat(first)


def clip_pixels(images: np.ndarray, clip: CLIPModel) -> torch.Tensor:
    """Pictures uint8 [n, h, w, 3] as the picture-book's CLIP takes them: fp32 [n, 3, side, side] in [-1, 1]."""
    x, side = (
        to_tensor(images),
        clip.config.vision_config.image_size,
    )
    return (
        x
        if x.shape[2:] == (side, side)
        else torch.nn.functional.interpolate(x, (side, side), mode="area")
    )


def features(output) -> torch.Tensor:
    """CLIP's features on the unit sphere, from what transformers returns: a tensor before version 5, an output since."""
    return torch.nn.functional.normalize(getattr(output, "pooler_output", output), dim=-1)
