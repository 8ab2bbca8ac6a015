"""The prompts whose pictures a comparison measures: more than it shows, where there are more."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np

from ..config import Compare
from ..picturebook.captions import Caption, held_out_captions
from ..picturebook.draw import draw_picture
from ..project import EMBEDDED_BASES
from .sampling.sampler import Sampler
from .sampling.settings import prompt_seed_pairs

# seed of the picture of the first held-out caption, or prompt of a file; the next ones follow
CAPTION_SEEDS = 10_000
SHOWN = "the prompts shown"  # what is measured without captions and without a file of prompts


@dataclass(frozen=True)
class MeasuredSet:
    """The prompts whose pictures are measured."""

    source: str  # in words
    prompts: list[str]  # of each picture
    seeds: list[int]  # of each picture
    captions: list[Caption]  # the held-out captions, [] for another source


def measured_set(sampler: Sampler, config: Compare) -> MeasuredSet:
    """Return the prompts to measure on: the file's, else the held-out captions, else those shown.

    More prompts than are shown, because numbers of ten pictures say little.
    """
    captions = [] if config.file_prompts else captions_for(sampler, config)
    prompts = config.file_prompts or [caption.text for caption in captions]
    if not prompts:
        return MeasuredSet(SHOWN, *prompt_seed_pairs(config.prompts, config.seeds), [])
    seeds = [CAPTION_SEEDS + index for index in range(len(prompts))]
    source = "held-out captions" if captions else "prompts of a file"
    return MeasuredSet(source, prompts, seeds, captions)


def captions_for(sampler: Sampler, config: Compare) -> list[Caption]:
    """Return the held-out captions to sample; only the embedded bases know their world."""
    # the captions describe scenes of the picture-book
    if sampler.base.name not in EMBEDDED_BASES or not config.captions:
        return []
    return held_out_captions(config.captions)


def draw_references(captions: Sequence[Caption]) -> np.ndarray:
    """Return a picture of each caption as the data set draws them: uint8 [n, h, w, 3]."""
    # fixed seeds, so that every comparison measures from the same set
    scenes = [
        draw_picture(caption.scene, Random(f"real {index}"))
        for index, caption in enumerate(captions)
    ]
    return np.stack([np.asarray(scene) for scene in scenes])
