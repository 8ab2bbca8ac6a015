"""The dial of a trained adapter: what is measured, stored, and read back."""

from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model

from nbs_lib.config import Train
from nbs_lib.models import NoiseSchedule
from nbs_lib.models.lora.checks import AdapterError
from nbs_lib.models.lora.dial import adapter_scale_for, guidance_scale_at, is_dial
from nbs_lib.models.lora.layers import lora_layers
from nbs_lib.models.lora.metadata import checked_metadata
from nbs_lib.train.data.batch import Batch
from nbs_lib.train.finish.calibration import SCALES, measure_dial, points_of

LEVELS = torch.linspace(0.99, 0.01, 1000)


def test_a_dial_is_inverted_as_far_as_it_rises():
    assert points_of([1 + 4 * scale for scale in SCALES]) == [
        [1.25, 0.062],
        [1.5, 0.125],
        [2.0, 0.25],
        [2.5, 0.375],
        [3.0, 0.5],
        [3.5, 0.625],
        [4.0, 0.75],
        [4.5, 0.875],
        [5.0, 1.0],
    ]
    # the largest w is no round one
    assert points_of([1.3, 1.6, 1.8, 1.9]) == [[1.25, 0.208], [1.5, 0.417], [1.9, 1.0]]
    # it falls after λ = 0.75: a larger λ gives no more guidance
    expected = [[1.25, 0.125], [1.5, 0.25], [2.0, 0.667], [2.1, 0.75]]
    assert points_of([1.5, 1.8, 2.1, 2.0]) == expected
    assert points_of([1.0] * 4) == points_of([0.9] * 4) == points_of([1.001] * 4) == []


def test_the_adapter_scale_lies_between_the_measured_ones():
    metadata = {"w_train": 4.0, "dial": [[2.0, 0.5], [3.0, 1.0]]}
    found = [adapter_scale_for(metadata, w) for w in (1.0, 1.5, 2.0, 2.5, 3.0)]
    assert found == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert [guidance_scale_at(metadata, scale) for scale in (0, 0.25, 1, 2)] == [1, 1.5, 3, 3]
    with pytest.raises(ValueError, match="given 3.5; allowed is 1 to 3, which this adapter gives"):
        adapter_scale_for(metadata, 3.5)
    # not measured
    assert adapter_scale_for({"w_train": 4.0, "dial": []}, 2.5) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "dial",
    [
        None,
        {},
        [1.5, 0.3],
        [[1.5]],
        [[1.5, "1"]],
        [[2.0, 0.5], [1.5, 0.6]],
        [[2.0, 0.0]],
        [[0.5, 1.0]],
    ],
    ids=str,
)
def test_a_damaged_dial_is_refused(dial, tmp_path):
    assert is_dial([]) and is_dial([[1.5, 0.3], [2.0, 0.6]]) and not is_dial(dial)
    with pytest.raises(AdapterError, match="its dial is"):
        checked_metadata({"base_hash": "1", "w_train": 4.0, "dial": dial}, tmp_path)


class Follower:
    """A student that follows guidance: its change is `share` of it, plus something across."""

    schedule = NoiseSchedule.diffusion(LEVELS, "epsilon")

    def __init__(self, share: float, batch: Batch):
        network = torch.nn.Sequential(torch.nn.Linear(1, 1))
        inject_adapter_in_model(LoraConfig(r=1, lora_alpha=1, target_modules=["0"]), network)
        self.lora_layers = lora_layers(network)
        self.share = share
        self.times: list[int] = []
        generator = torch.Generator().manual_seed(1)
        self.pair = torch.randn(2, *batch.noise.shape, generator=generator)
        # across the direction of guidance, which must not count
        across = torch.randn(batch.noise.shape, generator=generator)
        direction = self.pair[1] - self.pair[0]
        along = (across * direction).sum((1, 2, 3), keepdim=True)
        self.across = across - along / direction.square().sum((1, 2, 3), keepdim=True) * direction

    def noisy_latents(self, batch):
        assert batch.answers is None
        self.times.append(int(batch.t[0]))
        return batch.x_t

    def base_prediction(self, x_t, t, context, pooled=None):
        return torch.zeros_like(x_t)

    def teacher_pair(self, x_t, batch):
        return tuple(self.pair)

    def eval(self):
        return self

    def __call__(self, x_t, t, context, pooled):
        scale = self.lora_layers[0].scaling["default"]
        uncond, cond = self.pair
        return cond + scale * (self.share * (cond - uncond) + self.across)


def test_a_dial_is_the_share_of_guidance_that_an_adapter_adds():
    batch = Batch(
        latents=torch.zeros(3, 2, 4, 4),
        noise=torch.zeros(3, 2, 4, 4),
        t=torch.tensor([10, 500, 990]),
        context=torch.zeros(3, 1, 1),
        uncond=torch.zeros(3, 1, 1),
        w=torch.ones(3),
        weight=torch.ones(3),
        example=torch.arange(3),
    )
    student = Follower(2.0, batch)
    examples = SimpleNamespace(held_out=torch.arange(3), held_out_batches=lambda: [batch])
    base = SimpleNamespace(scheduler=lambda kind: kind(steps_offset=1))
    training = SimpleNamespace(base=base, examples=examples, student=student, parameters=[])
    dial = measure_dial(Train(), training, main=True)
    assert dial == points_of([1 + 2 * scale for scale in SCALES])
    assert student.lora_layers[0].scaling["default"] == 1.0
    # every fourth of 25 steps of the base's own sampling
    assert student.times == [961, 801, 641, 481, 321, 161, 1]
    for other in (Train(objective="finetune"), Train(method="full")):
        assert measure_dial(other, training, main=True) == []
    assert measure_dial(Train(), training, main=False) == []
