from random import Random

import numpy as np
import pytest
import torch

from nbs_lib.compare.metrics import (
    bootstrap_interval,
    caption_first,
    guidance_recovered,
    latent_mse,
    psnr,
    recovered_by_picture,
    ssim,
)
from nbs_lib.models import embedded_clip, find_base
from nbs_lib.picturebook.captions import held_out_captions
from nbs_lib.picturebook.draw import draw


def test_guidance_recovered_by_hand():
    assert guidance_recovered(0.4, 0.8, 0.7) == pytest.approx(0.75)
    assert guidance_recovered(0.4, 0.8, 0.4) == 0 and guidance_recovered(0.4, 0.8, 0.8) == 1
    assert guidance_recovered(0.4, 0.8, 0.3) == pytest.approx(-0.25)
    assert guidance_recovered(0.5, 0.5, 0.9) is None and guidance_recovered(0.6, 0.5, 0.9) is None


def test_distances_by_hand():
    black, white = np.zeros((2, 16, 16, 3), np.uint8), np.full((2, 16, 16, 3), 255, np.uint8)
    assert latent_mse(torch.zeros(2, 4, 2, 2), torch.full((2, 4, 2, 2), 2.0)) == 4
    assert psnr(black, white) == pytest.approx(0, abs=1e-4) and ssim(black, white) < 0.01
    assert psnr(black, np.full_like(black, 25)) == pytest.approx(20 * np.log10(255 / 25), abs=1e-3)
    ramp = np.broadcast_to(np.arange(0, 256, 16, np.uint8)[:, None, None], (2, 16, 16, 3))
    assert ssim(ramp, ramp) == pytest.approx(1, abs=1e-4)


def test_the_interval_holds_the_rate_and_narrows_with_prompts():
    few, many = (np.arange(n) % 4 > 0 for n in (40, 4000))
    for sample in (few, many):
        low, high = bootstrap_interval(sample, np.mean)
        assert low < 0.75 < high
    assert high - low < 0.03
    assert bootstrap_interval([np.ones(5)] * 3, recovered_by_picture) == (None, None)
    assert bootstrap_interval(few, np.mean) == bootstrap_interval(few, np.mean)


def test_the_shipped_clip_knows_drawn_scenes_from_their_near_misses():
    captions = held_out_captions(30, seed=5)
    images = np.stack([np.asarray(draw(caption.scene, Random(i))) for i, caption in enumerate(captions)])
    clip, tokenizer = embedded_clip(), find_base("embedded").tokenizer()
    right = caption_first(images, captions, clip, tokenizer)
    wrong = caption_first(np.roll(images, 1, axis=0), captions, clip, tokenizer)
    assert right.float().mean() > 0.5 and wrong.float().mean() < 0.2  # chance is 1/16
