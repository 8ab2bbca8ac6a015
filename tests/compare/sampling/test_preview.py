"""Previews: the predicted x_0 of every scheduler, in colours that need no VAE."""

import numpy as np
import pytest
import torch
from torch.nn.functional import adaptive_avg_pool2d

from nbs_lib.compare.sampling.preview import LatentColours
from nbs_lib.compare.sampling.sampler import Sampler
from nbs_lib.config.contenders import DIFFUSION_SAMPLERS
from nbs_lib.images.convert import to_tensor, to_uint8

STEPS = 6


@pytest.fixture(scope="module")
def sampler(base, adapter):
    return Sampler(base, adapter)


@pytest.mark.parametrize("scheduler", DIFFUSION_SAMPLERS)
def test_the_last_prediction_is_the_picture(sampler, scheduler):
    settings = sampler.resolver.resolve("guided", STEPS, scheduler=scheduler)
    predicted = []
    samples = sampler.sample(settings, ["a cat"], [0], on_predicted=predicted.append)
    assert len(predicted) == STEPS and predicted[0].shape == samples.latents.shape
    error = (predicted[-1] - samples.latents).norm() / samples.latents.norm()
    # DDIM ends at the first timestep, whose alpha is 0.999: its noise of 3 % is left
    assert error < 0.1
    again = sampler.sample(settings, ["a cat"], [0])
    assert torch.equal(again.latents, samples.latents), "watching changes nothing"


def test_a_linear_picture_is_found_again():
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 5, 4, 6, generator=generator)
    # small enough that no pixel lies beyond the range and is cut
    weights = torch.randn(3, 5, generator=generator) / 20
    pixels = torch.einsum("oc,nchw->nohw", weights, latents) + 0.1
    # each place of the latents is a block of 4 x 4 pixels
    images = to_uint8(pixels.repeat_interleave(4, 2).repeat_interleave(4, 3))
    colours = LatentColours()
    assert colours.picture(None, latents[0]) is None, "nothing was drawn yet"
    colours.fit(None, latents, images)
    picture = colours.picture(None, latents[1])
    assert picture.shape == (4, 6, 3) and picture.dtype == np.uint8
    # of 255: both are rounded
    assert np.abs(picture.astype(int) - images[1, ::4, ::4].astype(int)).max() <= 1


def test_a_plain_picture_can_be_fitted():
    colours = LatentColours()
    colours.fit(None, torch.zeros(1, 4, 8, 8), np.full((1, 64, 64, 3), 40, np.uint8))
    assert np.abs(colours.picture(None, torch.zeros(4, 8, 8)).astype(int) - 40).max() <= 1


def test_a_fit_to_one_picture_shows_another(sampler):
    settings = sampler.resolver.resolve("guided", STEPS)
    prompts = ["A person holding a cat", "A beach with a lot of waves on it"]
    samples = sampler.sample(settings, prompts, [0, 1])
    colours = LatentColours()
    colours.fit(None, samples.latents[:1], samples.images[:1])
    shown = to_tensor(colours.picture(None, samples.latents[1])[None])
    small = adaptive_avg_pool2d(to_tensor(samples.images[1:]), shown.shape[-2:])
    correlation = torch.corrcoef(torch.stack([shown.flatten(), small.flatten()]))[0, 1]
    assert correlation > 0.8
