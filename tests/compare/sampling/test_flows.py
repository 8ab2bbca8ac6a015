"""Sampling of a flow: repeatable, counted, and seen while it goes on."""

import numpy as np
import pytest
import torch

from nbs_lib.compare.sampling.sampler import Sampler
from nbs_lib.models import find_base
from nbs_lib.models.lora.layers import add_lora
from nbs_lib.models.lora.saving import save_adapter

PROMPTS = ["a cat", "a dog"]
FEW_STEPS = {
    "guidance_scale": 1.0,
    "scheduler": "FlowMatchLCMScheduler",
    "timestep_spacing": "trailing",
    "steps": 2,
}


@pytest.fixture(scope="module")
def sampler(tiny_base, tmp_path_factory, one_thread) -> Sampler:
    """The sampler of an adapter that learned consistency on a tiny SD 3."""
    folder = tmp_path_factory.mktemp("flow")
    base = find_base(str(tiny_base("sd3", folder / "base")))
    denoiser = base.denoiser()
    add_lora(denoiser, 2, 2.0, seed=0)
    metadata = {"base_hash": base.hash, "w_train": 4.0, "objective": "consistency"}
    save_adapter(folder / "adapter", denoiser, metadata | {"sampling": FEW_STEPS})
    return Sampler(base, folder / "adapter", resolution=32)


def test_noise_between_steps_comes_from_the_pictures_seeds(sampler):
    settings = sampler.resolver.resolve("tuned", 25)
    assert (settings.scheduler, settings.steps) == ("FlowMatchLCMScheduler", 2)
    first, again = (sampler.sample(settings, PROMPTS, [1, 2]) for _ in range(2))
    np.testing.assert_array_equal(first.images, again.images)
    assert first.nfe == 2
    # each picture has its own noise, whatever is drawn beside it
    [alone] = sampler.sample(settings, PROMPTS[1:], [2]).latents
    torch.testing.assert_close(alone, first.latents[1], rtol=1e-4, atol=1e-4)
    other = sampler.sample(settings, PROMPTS[1:], [3]).latents[0]
    assert (other - alone).abs().max() > 0.1


def test_the_predicted_x_0_of_the_last_step_is_the_picture(sampler):
    seen = []
    settings = sampler.resolver.resolve("guided", 3)
    samples = sampler.sample(settings, PROMPTS, [1, 2], on_predicted=seen.append)
    assert samples.nfe == 6 and len(seen) == 3
    torch.testing.assert_close(seen[-1].cpu(), samples.latents, rtol=1e-4, atol=1e-4)
    assert (seen[0].cpu() - samples.latents).abs().max() > 1e-2


@pytest.mark.parametrize("scheduler", ["DPMSolverMultistepScheduler", "UniPCMultistepScheduler"])
def test_multistep_schedulers_come_to_the_same_picture(sampler, scheduler):
    """The differential equation is one, so many steps of any method end alike."""
    euler = sampler.sample(sampler.resolver.resolve("unguided", 60), PROMPTS, [1, 2])
    settings = sampler.resolver.resolve("unguided", 60, scheduler=scheduler)
    other = sampler.sample(settings, PROMPTS, [1, 2])
    distance = (other.latents - euler.latents).abs().mean()
    assert distance < 0.1 * euler.latents.abs().mean()
