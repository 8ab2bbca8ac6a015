"""Peak signal-to-noise ratio: how near a picture comes to another one."""

import math

import numpy as np
from PIL import Image

PEAK = 255.0  # the range of a channel
POOR = 20.0  # dB; an error of a tenth of the range, the root of its mean square
MOST = 99.0  # dB, of equal pictures, whose ratio is infinite


def psnr(picture: Image.Image, other: Image.Image) -> float:
    """Return 10 log10(255² / mean squared error) in dB, MOST at most.

    picture, other: RGB, of one size
    """
    error = np.asarray(picture, np.float64) - np.asarray(other, np.float64)
    mean_square = np.square(error).mean()
    return min(MOST, 10 * math.log10(PEAK**2 / mean_square)) if mean_square else MOST
