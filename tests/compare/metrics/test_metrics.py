from random import Random

import numpy as np
import pytest
import torch

from nbs_lib.compare.metrics.clip import ClipError, load_clip
from nbs_lib.compare.metrics.confidence import (
    bootstrap_interval,
    by_prompt,
    set_intervals,
    wilson,
    with_interval,
)
from nbs_lib.compare.metrics.dial import nearest, scales_to_try
from nbs_lib.compare.metrics.image_metrics import (
    clip_score,
    diversity,
    fid,
    guidance_recovered,
    kid,
    latent_mse,
    recovered_by_picture,
    ssim,
)
from nbs_lib.models import embedded_clip, find_base
from nbs_lib.picturebook.caption_ranking import caption_ranked_first
from nbs_lib.picturebook.captions import held_out_captions
from nbs_lib.picturebook.draw import draw_picture


def test_guidance_recovered_by_hand():
    assert guidance_recovered(0.4, 0.8, 0.7) == pytest.approx(0.75)
    assert guidance_recovered(0.4, 0.8, 0.4) == 0 and guidance_recovered(0.4, 0.8, 0.8) == 1
    assert guidance_recovered(0.4, 0.8, 0.3) == pytest.approx(-0.25)
    assert guidance_recovered(0.5, 0.5, 0.9) is None and guidance_recovered(0.6, 0.5, 0.9) is None


def test_diversity_by_hand():
    # root mean square differences of 3, 4 and 1 among the first prompt's pictures
    latents = torch.tensor([0.0, 9.0, 3.0, 5.0, 4.0, 5.0]).view(6, 1, 1, 1).expand(6, 4, 2, 2)
    values, prompts = diversity(latents, ["a", "alone", "a", "b", "a", "b"])
    assert prompts == ["a", "b"] and values.tolist() == pytest.approx([8 / 3, 0])
    assert diversity(latents[:2], ["a", "b"])[1] == []


def test_distances_by_hand():
    black, white = np.zeros((2, 16, 16, 3), np.uint8), np.full((2, 16, 16, 3), 255, np.uint8)
    values = torch.stack([torch.zeros(4, 2, 2), torch.full((4, 2, 2), 2.0)])
    assert latent_mse(values, torch.zeros(2, 4, 2, 2)).tolist() == [0, 4]
    assert (ssim(black, white) < 0.01).all()
    ramp = np.broadcast_to(np.arange(0, 256, 16, np.uint8)[:, None, None], (2, 16, 16, 3))
    assert ssim(ramp, ramp) == pytest.approx([1, 1], abs=1e-4) and ssim(
        ramp[:1], ramp[:1]
    ).shape == (1,)
    generator = np.random.default_rng(0)
    a, b = (generator.integers(0, 256, (17, 16, 16, 3), dtype=np.uint8) for _ in range(2))
    # the last one is alone in its batch
    assert ssim(a, b)[16:] == pytest.approx(ssim(a[16:], b[16:]))


def test_a_clip_score_by_hand():
    images = torch.tensor([[1.0, 0], [0.6, 0.8], [1, 0]])
    texts = torch.tensor([[1.0, 0], [1, 0], [-1, 0]])
    assert clip_score(images, texts) == pytest.approx([100, 60, 0])


def test_the_distance_of_sets_by_hand():
    """FID in one dimension is the squared difference of means and of spreads."""
    a, b = torch.tensor([[0.0], [2.0]]), torch.tensor([[3.0], [7.0]])
    assert fid(a, b) == pytest.approx(16 + (2**0.5 - 8**0.5) ** 2, abs=1e-4)
    assert fid(a, a) == pytest.approx(0, abs=1e-4)
    within = 1.0 + 22.0**3  # pairs of a: 0·2; of b: 3·7
    across = (1 + 7**3) / 2  # 0·7 and 2·3; 0·3 and 2·7 are of one prompt each
    assert kid(a, b) == pytest.approx(within - 2 * across) and kid(a, a) == 0
    assert kid(a, b, np.array([1, 2])) == pytest.approx(kid(a, b)), (
        "a picture drawn twice is no second picture"
    )


def test_kid_is_unbiased_even_if_the_pictures_of_a_prompt_are_alike():
    generator = torch.Generator().manual_seed(0)

    def features(n: int) -> torch.Tensor:
        return torch.nn.functional.normalize(torch.randn(n, 8, generator=generator), dim=-1)

    def null_values(alike: float) -> list[float]:
        pairs = [
            (a := features(12), torch.nn.functional.normalize(a * alike + features(12), dim=-1))
            for _ in range(400)
        ]
        return [kid(a, b) for a, b in pairs]

    for alike in (0.0, 5.0):
        values = np.array(null_values(alike))
        assert abs(values.mean()) < 4 * values.std() / 20
    # equal means, other directions: only a kernel with x·y itself sees it
    left, right = features(200), features(200)
    left[:, 4:], right[:, :4] = 0, 0
    assert kid(*(torch.nn.functional.normalize(vectors, dim=-1) for vectors in (left, right))) > 0.1


def test_weighted_kid_ignores_pictures_of_weight_zero():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(9, 5, generator=generator), torch.randn(9, 5, generator=generator) + 0.3
    assert kid(a, b, np.array([1, 1, 1, 1, 1, 1, 0, 0, 0])) == pytest.approx(kid(a[:6], b[:6]))
    intervals = set_intervals(a, b, list("abcdefghi"))
    for name, value in (("fid", fid(a, b)), ("kid", kid(a, b))):
        assert (
            intervals[name]["value"] == pytest.approx(value)
            and intervals[name]["low"] < value < intervals[name]["high"]
        )
    assert set_intervals(a, b, list("abcdefghi")) == intervals, "the draws are always the same"
    few = set_intervals(a, b, list("aaabbbccc"))
    assert (
        few["kid"]["high"] - few["kid"]["low"] != intervals["kid"]["high"] - intervals["kid"]["low"]
    ), "prompts are drawn, not pictures"
    assert set_intervals(a, b, ["a"] * 9)["fid"] == {"value": fid(a, b), "low": None, "high": None}


def test_intervals_resample_prompts_not_seeds():
    values, prompts = np.array([1.0, 3.0, 5.0, 5.0]), ["a", "a", "b", "b"]
    assert by_prompt(values, prompts).tolist() == [2, 5]
    intervals = with_interval(np.tile([1.0, 3.0], 50), ["a"] * 100)
    assert intervals == {"value": 2, "low": None, "high": None}, "one prompt says nothing of others"


def test_the_nearest_scale_is_the_vertex_of_a_parabola():
    scales = scales_to_try([1.5, 4.0])
    assert scales[0] == 1 and scales[-1] == pytest.approx(5.2) and len(scales) == 11
    errors = np.array([(w - 2.34) ** 2 + 7 for w in scales])
    assert nearest(scales, errors) == pytest.approx(2.34, abs=1e-3)
    assert nearest(scales, np.arange(11.0)) == 1 and nearest(scales, -np.arange(11.0)) is None
    near_one = np.array([(w - 1.1) ** 2 for w in scales])
    assert nearest(scales, near_one) == pytest.approx(1.1, abs=1e-3), (
        "between the first two that were tried"
    )
    assert scales_to_try([90.0])[-1] == 100


def test_the_clip_is_a_parameter_and_loads_without_a_bar(tmp_path, base, capfd):
    from transformers import CLIPImageProcessorPil

    embedded = load_clip("auto", base)
    assert embedded.name == "embedded" and load_clip("none", base) is None
    captions = held_out_captions(20, seed=3)
    images = np.stack(
        [np.asarray(draw_picture(caption.scene, Random(i))) for i, caption in enumerate(captions)]
    )
    texts = embedded.text_features([caption.text for caption in captions])
    right = clip_score(embedded.image_features(images), texts).mean()
    wrong = clip_score(embedded.image_features(np.roll(images, 1, axis=0)), texts).mean()
    assert right > wrong + 10
    embedded.model.save_pretrained(tmp_path)
    embedded.tokenizer.save_pretrained(tmp_path)
    size = {"height": 128, "width": 128}
    half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    CLIPImageProcessorPil(size=size, crop_size=size, do_center_crop=False, **half).save_pretrained(
        tmp_path
    )
    local = load_clip(str(tmp_path), base)
    assert torch.allclose(local.image_features(images), embedded.image_features(images), atol=1e-4)
    assert local.text_features(["A cat"]).shape == (1, embedded.text_features(["A cat"]).shape[1])
    assert "Loading" not in capfd.readouterr().err
    with pytest.raises(ClipError, match="there is no such folder"):
        load_clip("/nowhere/at all", base)
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(ClipError, match="it does not load"):
        load_clip(str(tmp_path), base)


def test_the_interval_holds_the_rate_and_narrows_with_prompts():
    few, many = (np.arange(n) % 4 > 0 for n in (40, 4000))
    for sample in (few, many):
        low, high = bootstrap_interval(sample, np.mean)
        assert low < 0.75 < high
    assert high - low < 0.03
    assert bootstrap_interval([np.ones(5)] * 3, recovered_by_picture) == (None, None)
    assert bootstrap_interval(few, np.mean) == bootstrap_interval(few, np.mean)


def test_the_embedded_clip_ranks_captions_above_near_misses():
    captions = held_out_captions(30, seed=5)
    images = np.stack(
        [np.asarray(draw_picture(caption.scene, Random(i))) for i, caption in enumerate(captions)]
    )
    clip, tokenizer = embedded_clip(), find_base("embedded").tokenizer()
    right = caption_ranked_first(images, captions, clip, tokenizer)
    wrong = caption_ranked_first(np.roll(images, 1, axis=0), captions, clip, tokenizer)
    assert right.float().mean() > 0.5 and wrong.float().mean() < 0.2  # chance is 1/16


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        # by hand: z² = 3.841459; (0.8 + 0.192073 ± 1.959964 √(0.016 + 0.009604)) / 1.384146
        (8, 10, 0.490162, 0.943318),
        # (0 + z²/20 ± z · z/20) / (1 + z²/10): from 0 to z² / (10 + z²)
        (0, 10, 0.0, 0.277533),
        (10, 10, 0.722467, 1.0),
        # 1/2 ± z / (2 √(n + z²)) = 1/2 ± 1.959964 / (2 · 4.454375), where half of 16 are
        (8, 16, 0.279996, 0.720004),
        (0, 0, 0.0, 1.0),
    ],
)
def test_wilson_interval_by_hand(successes, trials, low, high):
    assert wilson(successes, trials) == pytest.approx((low, high), abs=2e-6)
