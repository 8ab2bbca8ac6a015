"""Sampling in bf16 and fp16 beside fp32, and the VAE in slices."""

import numpy as np
import pytest
import torch

from nbs_lib.compare.report.descriptions import describe_precision
from nbs_lib.compare.sampling import sampler as sampler_module
from nbs_lib.compare.sampling.precision import in_precision
from nbs_lib.compare.sampling.sample_cache import provenance
from nbs_lib.compare.sampling.sampler import Sampler, Samples

pytestmark = pytest.mark.slow

PROMPTS = ["A person holding a cat", "A road that is going down a hill"]
# root mean square difference of the base's prediction, as a share: 8 and 11 bits of a number
LARGEST_DIFFERENCES = {"bf16": 0.02, "fp16": 0.003}


@pytest.fixture(scope="module")
def samplers(base, adapter) -> dict[str, Sampler]:
    return {
        precision: Sampler(base, adapter, batch_size=2, mixed_precision=precision)
        for precision in ("no", "bf16", "fp16")
    }


def sample(sampler: Sampler, name: str) -> Samples:
    settings = sampler.resolver.resolve(name, 3)
    return sampler.sample(settings, PROMPTS, [0, 1])


@pytest.mark.parametrize("precision", LARGEST_DIFFERENCES)
def test_low_precision_draws_nearly_the_same_and_says_how_nearly(samplers, precision):
    plain, lower = samplers["no"], samplers[precision]
    before = {name: x.clone() for name, x in lower.pipelines.pipe.unet.state_dict().items()}
    for contender in ("guided", "tuned"):
        one, other = sample(plain, contender), sample(lower, contender)
        assert one.nfe == other.nfe
        distance = np.abs(one.images.astype(float) - other.images).mean()
        assert 0 < distance < 3, "in 1/255"
    after = lower.pipelines.pipe.unet.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before), "fp32 weights are back"
    difference = lower.pipelines.precision_difference
    assert 0 < difference < LARGEST_DIFFERENCES[precision]
    text = describe_precision({"mixed_precision": precision, "precision_difference": difference})
    assert text.startswith(f"sampled in {precision}: ") and f"{100 * difference:.2g} %" in text


def test_fp32_has_no_difference_and_each_precision_its_own_pictures_on_the_disk(samplers):
    assert samplers["no"].pipelines.precision_difference is None
    assert describe_precision({"precision_difference": None}) == describe_precision({}) == ""
    records = [
        provenance(sampler, sampler.resolver.resolve("guided", 3)) for sampler in samplers.values()
    ]
    assert len({record["mixed_precision"] for record in records}) == 3


def test_timesteps_are_not_rounded(base):
    unet = in_precision(base.denoiser(), "bf16")
    times = []
    unet.time_proj.register_forward_pre_hook(lambda module, inputs: times.append(inputs[0]))
    context = torch.zeros(1, 7, unet.config.cross_attention_dim)
    with torch.no_grad():
        [output] = unet(
            torch.zeros(1, unet.config.in_channels, 16, 16),
            torch.tensor(993.0),
            encoder_hidden_states=context,
            return_dict=False,
        )
    assert output.dtype == torch.float32 and float(times[0]) == 993


def test_large_pictures_are_decoded_one_by_one(samplers, monkeypatch):
    sampler = samplers["no"]
    decoder = sampler.pipelines.pipe.vae.decoder
    rows = []
    hook = decoder.register_forward_hook(lambda module, inputs, output: rows.append(len(inputs[0])))
    at_once = sample(sampler, "unguided")
    assert set(rows) == {2}
    rows.clear()
    monkeypatch.setattr(sampler_module, "LARGEST_UNSLICED", 0)
    in_slices = sample(sampler, "unguided")
    hook.remove()
    assert set(rows) == {1}
    assert np.abs(at_once.images.astype(int) - in_slices.images).max() <= 1
