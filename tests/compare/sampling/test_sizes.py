"""Sizes that a base's networks can draw."""

from types import SimpleNamespace

import pytest
from diffusers.configuration_utils import FrozenDict

from nbs_lib.compare.sampling.sampler import Sampler
from nbs_lib.compare.sampling.sizes import PictureSizes, picture_sizes


def pipeline(factor: int, blocks: int, sample_size: int) -> tuple[SimpleNamespace, ...]:
    """Return what is read of a pipeline: its VAE's factor, its UNet's blocks and latents' side."""
    config = FrozenDict(down_block_types=("",) * blocks, sample_size=sample_size)
    return SimpleNamespace(vae_scale_factor=factor), SimpleNamespace(config=config)


def transformer(sample_size: int, positions: int) -> tuple[SimpleNamespace, ...]:
    """Return what is read of SD 3's pipeline."""
    config = FrozenDict(patch_size=2, sample_size=sample_size, pos_embed_max_size=positions)
    return SimpleNamespace(vae_scale_factor=8), SimpleNamespace(config=config)


@pytest.mark.parametrize(
    ("pipe", "resolution", "sizes"),
    [
        # SD 1.5 at its own size, SDXL, and a picture-book whose VAE quarters or eighths
        (pipeline(8, 4, 64), None, PictureSizes(512, 64, 256, 1024)),
        (pipeline(8, 3, 128), 1024, PictureSizes(1024, 32, 512, 2048)),
        (pipeline(4, 2, 16), 64, PictureSizes(64, 8, 32, 128)),
        (pipeline(8, 3, 16), 128, PictureSizes(128, 32, 64, 256)),
        # a VAE that halves once: stock pipelines take multiples of 8 all the same
        (pipeline(2, 1, 16), 24, PictureSizes(24, 8, 8, 48)),
        # SD 3, which has fewer positions than twice the side takes, and 3.5 medium
        (transformer(128, 96), None, PictureSizes(1024, 16, 512, 1536)),
        (transformer(128, 384), None, PictureSizes(1024, 16, 512, 2048)),
    ],
)
def test_the_steps_are_those_that_vae_and_unet_halve_evenly(pipe, resolution, sizes):
    assert picture_sizes(*pipe, resolution) == sizes


def test_a_side_between_the_steps_is_refused_unless_it_was_trained_on():
    sizes = PictureSizes(500, 64, 192, 960)
    sizes.check("width", 500)
    sizes.check("width", 960)
    for side in (128, 200, 1024):
        with pytest.raises(ValueError, match=f"height: given {side}; allowed is a multiple of 64"):
            sizes.check("height", side)


def test_all_sizes_can_be_drawn_and_large_ones_in_smaller_batches(base, adapter):
    sampler = Sampler(base, adapter, batch_size=8)
    sizes = sampler.sizes
    batches = []
    for width, height in ((sizes.low, sizes.high), (sizes.trained + sizes.step, sizes.trained)):
        settings = sampler.resolver.resolve("guided", 1, size=(width, height))
        batches.append(len(sampler._batches(settings, 8)))
        pictures = sampler.sample(settings, ["a cat"], [0]).images
        assert pictures.shape == (1, height, width, 3)
    # half the side by twice the side is as large as the trained size
    assert batches[0] == 1 and batches[1] > 1
