"""Share of pictures that show the kind of scene that was new to the base, by nearest kind."""

from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image

from nbs_lib.models import embedded_clip
from nbs_lib.picturebook.caption_ranking import clip_pixels, features
from nbs_lib.picturebook.captions import SCENE_KINDS
from nbs_lib.picturebook.dataset import draw_book
from nbs_lib.picturebook.snowmen import draw_snowman

DRAWN = 40  # pictures of each kind that its centre is the mean of


def snowmen() -> np.ndarray:
    """Return drawn snowmen, uint8 [n, 128, 128, 3]."""
    return np.stack([np.asarray(draw_snowman(Random(f"judged {i}"))[0]) for i in range(DRAWN)])


def shares(folder: Path, pictures: list[dict], word: str, unseen: np.ndarray) -> dict[str, float]:
    """Return each contender's share of pictures that are nearest to the unseen kind's centre.

    Only pictures of prompts with the word count. Nearest: by the cosine of the embedded CLIP's
    image features to the mean of each of the ten kinds' drawn pictures, and of the unseen kind's.

    unseen: pictures of that kind, uint8 [n, h, w, 3]
    """
    book = draw_book(30 * DRAWN, seed=5, held_out=True)
    scenes = list(zip(book.scenes, book.images, strict=True))
    kinds = [
        np.stack([image for scene, image in scenes if scene.kind == kind]) for kind in SCENE_KINDS
    ]
    centres = torch.stack([image_features(images[:DRAWN]).mean(0) for images in [*kinds, unseen]])
    file_sets = [picture["files"] for picture in pictures if word in picture["prompt"]]
    found_shares = {}
    for name in file_sets[0]:
        images = np.stack(
            [np.asarray(Image.open(folder / files[name]).convert("RGB")) for files in file_sets]
        )
        nearest = torch.cosine_similarity(
            image_features(images)[:, None], centres[None], dim=-1
        ).argmax(1)
        found_shares[name] = float((nearest == len(SCENE_KINDS)).float().mean())
    return found_shares


@torch.no_grad()
def image_features(images: np.ndarray) -> torch.Tensor:
    """Return CLIP's features [n, width], on the unit sphere, of pictures uint8 [n, h, w, 3]."""
    clip = embedded_clip()
    return features(clip.get_image_features(pixel_values=clip_pixels(images, clip)))
