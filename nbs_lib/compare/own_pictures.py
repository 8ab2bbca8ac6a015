"""A fine-tuning's own pictures, beside what base and adapter draw for their captions."""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageOps

from ..cache.format import Cache, CacheError, read_cache_metadata
from ..images.convert import to_uint8
from ..run.run import Run
from .metrics.clip import Clip
from .metrics.confidence import with_interval
from .metrics.vision import VisionModel
from .sampling.sample_cache import SampleCache
from .sampling.sampler import Sampler
from .sampling.settings import SamplingSettings

MAX_PICTURES = 12  # that are drawn and measured
# seed of the noise for the first caption; the next ones follow
FIRST_SEED = 20_000
# the contenders that show what was learned, in this order
BEFORE_AND_AFTER = ("guided", "tuned")


@dataclass(frozen=True)
class OwnPictures:
    """Pictures of the source, and those that contenders draw for their captions.

    images: uint8 [n, h, w, 3], as the VAE gives them back
    drawn: of the same shape, by contender
    """

    captions: list[str]
    images: np.ndarray
    drawn: dict[str, np.ndarray]


@dataclass(frozen=True)
class OwnExamples:
    """Captions and scaled latents [n, c, h, w] of examples of the source."""

    captions: list[str]
    latents: torch.Tensor


def read_own_examples(run: Run) -> OwnExamples | None:
    """Return examples of the source, evenly spread.

    None without images, or if the cache is gone: the adapter can still be compared.
    """
    try:
        stored = Cache(run.cache, read_cache_metadata(run.cache))
        table = stored.examples.select(["prior", "flipped", "shard"]).to_pydict()
    except (CacheError, OSError):
        return None
    columns = zip(table["prior"], table["flipped"], strict=True)
    own = [index for index, (prior, flipped) in enumerate(columns) if not prior and not flipped]
    if not own or not stored.meta["images"]:
        return None
    # latents of one shape: buckets have several
    shapes = [stored.meta["shards"][table["shard"][index]]["shape"] for index in own]
    own = [index for index, shape in zip(own, shapes, strict=True) if shape == shapes[0]]
    count = min(MAX_PICTURES, len(own))
    chosen = [own[number * len(own) // count] for number in range(count)]
    captions = stored.captions
    return OwnExamples([captions[index] for index in chosen], stored.latents(chosen))


def draw_own_captions(
    cache: SampleCache,
    settings: list[SamplingSettings],
    examples: OwnExamples,
) -> OwnPictures:
    """Return own pictures and what contenders draw for them. settings: of the contenders."""
    captions = examples.captions
    seeds = [FIRST_SEED + index for index in range(len(captions))]
    drawn = {}
    for name in BEFORE_AND_AFTER:
        [row] = [row for row in settings if row.contender == name]
        drawn[name] = cache.get_or_sample(row, captions, seeds).images
    images = decode_latents(cache.sampler, examples.latents, drawn["tuned"].shape[1:3])
    return OwnPictures(captions, images, drawn)


@torch.no_grad()
def decode_latents(sampler: Sampler, latents: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
    """Return the pictures of scaled latents [n, c, h, w], uint8 [n, *size, 3].

    size: height and width
    """
    vae = sampler.pipelines.pipe.vae
    pictures = []
    # one by one: a VAE needs more memory than the denoiser
    for latent in latents.to(sampler.device).split(1):
        image = Image.fromarray(to_uint8(sampler.base.decode(vae, latent))[0])
        pictures.append(np.asarray(ImageOps.fit(image, size[::-1])))
    return np.stack(pictures)


def measure_likeness(own: OwnPictures, model: Clip | VisionModel | None) -> dict:
    """Return how like the own pictures each contender's are: the mean cosine of features.

    likeness: by contender, as value, low, high; {} without a model
    count: pictures
    """
    likeness = {}
    if model:
        references = model.image_features(own.images)
        for name, images in own.drawn.items():
            cosines = (model.image_features(images) * references).sum(-1).cpu().numpy()
            likeness[name] = with_interval(cosines, own.captions)
    return {"likeness": likeness, "count": len(own.captions)}
