import numpy as np
import pytest
from PIL import Image

from nbs_lib.images.psnr import MOST, psnr


def plain(value: int) -> Image.Image:
    return Image.new("RGB", (8, 6), (value,) * 3)


def test_psnr_by_hand():
    # an error of a fifth of the range: 10 log10(25)
    assert psnr(plain(100), plain(151)) == pytest.approx(13.979, abs=1e-3)
    # bytes must not wrap around
    assert psnr(plain(0), plain(255)) == pytest.approx(0)
    half = np.asarray(plain(100)).copy()
    half[:, :4] += 51
    assert psnr(plain(100), Image.fromarray(half)) == pytest.approx(13.979 + 3.010, abs=1e-3)


def test_equal_pictures_have_a_finite_ratio():
    assert psnr(plain(7), plain(7)) == MOST
