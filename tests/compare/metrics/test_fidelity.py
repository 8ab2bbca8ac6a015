"""Fidelity to guided: cases by hand, and pictures in pairs."""

import numpy as np
import pytest
import torch

from nbs_lib.compare.measurements import measure_fidelity
from nbs_lib.compare.metrics.confidence import rate_with_interval, wilson
from nbs_lib.compare.metrics.fidelity import (
    distance_ratio,
    feature_distance,
    ratio_with_interval,
)
from nbs_lib.compare.sampling.sample_cache import CachedSamples

PROMPTS = ["a", "b", "c", "d"]


def pictures(*values: float, side: int = 16) -> CachedSamples:
    """Return pictures whose latents are one number each, and that look the same."""
    images = np.full((len(values), side, side, 3), 100, np.uint8)
    latents = torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 4, side // 8, side // 8)
    return CachedSamples(images, latents, [])


@pytest.fixture
def samples() -> dict[str, CachedSamples]:
    """Pictures whose distances to guided are 4, 4, 4, 0 unguided and 1, 1, 9, 0 tuned."""
    return {
        "unguided": pictures(3.0, 4.0, 5.0, 4.0),
        "guided": pictures(1.0, 2.0, 3.0, 4.0),
        "tuned": pictures(2.0, 1.0, 6.0, 4.0),
    }


def test_distances_and_shares_by_hand(samples):
    fidelity = measure_fidelity(samples, PROMPTS, {})
    assert fidelity["guided"] is None
    tuned, unguided = fidelity["tuned"], fidelity["unguided"]
    assert tuned["count"] == 4
    assert tuned["latent_mse"]["value"] == 11 / 4 and unguided["latent_mse"]["value"] == 3
    assert tuned["distance_ratio"]["value"] == pytest.approx(11 / 12), "of means"
    assert unguided["distance_ratio"] == {"value": 1, "low": 1, "high": 1}
    # the last one is as near as unguided's, and not nearer
    assert tuned["nearer"]["rate"] == 0.5 and tuned["nearer"]["count"] == 4
    assert unguided["nearer"] is None, "it is the yardstick"
    assert tuned["ssim"]["value"] == pytest.approx(1, abs=1e-4)
    assert tuned["feature_distance_ratio"] is None
    for name in ("distance_ratio", "latent_mse"):
        assert tuned[name]["low"] < tuned[name]["value"] < tuned[name]["high"]
    assert tuned["nearer"]["low"] < 0.5 < tuned["nearer"]["high"]


def test_each_picture_is_held_against_guided_s_of_its_own_prompt(samples):
    before = measure_fidelity(samples, PROMPTS, {})["tuned"]
    tuned = samples["tuned"]
    order = [3, 2, 1, 0]
    swapped = CachedSamples(tuned.images, tuned.latents[order], [])
    after = measure_fidelity(samples | {"tuned": swapped}, PROMPTS, {})["tuned"]
    # 4, 6, 1, 2 against 1, 2, 3, 4
    assert after["latent_mse"]["value"] == (9 + 16 + 4 + 4) / 4 != before["latent_mse"]["value"]


def test_features_give_the_same_ratio_in_their_own_space(samples):
    guided = torch.tensor([[1.0, 0.0]] * 4)
    unguided = torch.tensor([[0.0, 1.0]] * 4)
    tuned = torch.tensor([[0.6, 0.8], [0.6, 0.8], [0.8, 0.6], [1.0, 0.0]])
    assert feature_distance(tuned, guided) == pytest.approx([0.4, 0.4, 0.2, 0])
    features = {"unguided": unguided, "guided": guided, "tuned": tuned}
    fidelity = measure_fidelity(samples, PROMPTS, features)
    assert fidelity["tuned"]["feature_distance_ratio"]["value"] == pytest.approx(0.25)
    assert fidelity["unguided"]["feature_distance_ratio"]["value"] == 1


def test_pictures_of_another_size_have_features_and_no_distances(samples):
    features = dict.fromkeys(("unguided", "guided", "tuned", "large"), torch.eye(4))
    features["unguided"] = torch.eye(4).roll(1, 0)
    large = pictures(0.0, 0.0, 0.0, 0.0, side=32)
    fidelity = measure_fidelity(samples | {"large": large}, PROMPTS, features)["large"]
    assert fidelity["feature_distance_ratio"]["value"] == 0
    names = ("distance_ratio", "latent_mse", "nearer", "ssim")
    assert [fidelity[name] for name in names] == [None] * 4


def test_both_sides_of_the_ratio_are_resampled_together():
    unguided = np.random.default_rng(0).lognormal(0, 2, 50)
    prompts = [str(index) for index in range(50)]
    ratio = ratio_with_interval(0.3 * unguided, unguided, prompts)
    # apart from each other, they would give an interval of several times the ratio
    assert ratio == {"value": pytest.approx(0.3)} | dict.fromkeys(
        ("low", "high"), pytest.approx(0.3)
    )
    alone = ratio_with_interval(0.3 * unguided, unguided, ["one prompt"] * 50)
    assert alone["low"] is None and alone["high"] is None, "one prompt says nothing of others"


def test_a_picture_that_guidance_hardly_changes_does_not_outweigh_the_others():
    assert distance_ratio(np.array([1.0, 1.0]), np.array([10.0, 1e-6])) == pytest.approx(0.2)
    assert distance_ratio(np.ones(3), np.zeros(3)) is None
    assert ratio_with_interval(np.ones(3), np.zeros(3), ["a", "b", "c"]) is None


def test_a_rate_s_interval_is_over_prompts_also_where_all_are_hits():
    prompts = ["a", "a", "b", "b"]
    low, high = wilson(2, 2)
    assert rate_with_interval(np.ones(4, bool), prompts) == {
        "rate": 1,
        "low": low,
        "high": high,
        "count": 4,
    }
    assert rate_with_interval(np.zeros(4, bool), prompts)["high"] == wilson(0, 2)[1]
