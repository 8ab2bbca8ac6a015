"""What pictures are worth, as pure functions: does the picture show what was asked, how near is it to the guided one."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from ..picturebook.judge import caption_first

__all__ = [
    "bootstrap_interval",
    "caption_first",
    "guidance_recovered",
    "latent_mse",
    "psnr",
    "recovered_by_picture",
    "ssim",
]


def guidance_recovered(unguided: float, guided: float, tuned: float) -> float | None:
    """(tuned − unguided) / (guided − unguided): the share of guidance's gain that tuned keeps; None where there is none."""
    return (tuned - unguided) / (guided - unguided) if guided > unguided else None


def recovered_by_picture(unguided: np.ndarray, guided: np.ndarray, tuned: np.ndarray) -> float | None:
    """`guidance_recovered` of the three rates, from what is true of each picture: three bool arrays [n]."""
    return guidance_recovered(float(np.mean(unguided)), float(np.mean(guided)), float(np.mean(tuned)))


def bootstrap_interval(
    paired: Sequence[np.ndarray] | np.ndarray,
    statistic: Callable[..., float | None],
    seed: int = 0,
    draws: int = 2000,
    level: float = 0.95,
) -> tuple[float, float] | tuple[None, None]:
    """Percentile interval of a statistic over prompts drawn again with replacement.

    paired: an array [n], or several that belong together place by place: the same prompts are drawn from each.
    statistic: takes those arrays. (None, None) where it is undefined in more than a fortieth of the draws: one end of the
    interval would be made of nothing. Source: Efron, Annals of Statistics 7 (1979), the percentile method.
    """
    arrays = [np.asarray(paired)] if getattr(paired, "ndim", 0) == 1 else [np.asarray(values) for values in paired]
    n = len(arrays[0])
    rng = np.random.default_rng(seed)
    found = [statistic(*(values[drawn] for values in arrays)) for drawn in rng.integers(0, n, (draws, n))]
    defined = [value for value in found if value is not None]
    if len(defined) < draws * (1 - (1 - level) / 2):
        return None, None
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def latent_mse(a: torch.Tensor, b: torch.Tensor) -> float:
    """Mean squared difference of final latents [n, c, h, w]."""
    return float((a - b).square().mean())


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Mean structural similarity of pictures uint8 [n, h, w, 3]; 1 where they are equal."""
    return float(structural_similarity_index_measure(_planes(a), _planes(b), data_range=255.0))


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal to noise in dB over all pixels of pictures uint8 [n, h, w, 3]; infinite where they are equal."""
    return float(peak_signal_noise_ratio(_planes(a), _planes(b), data_range=255.0))


def _planes(images: np.ndarray) -> torch.Tensor:
    return torch.tensor(images).permute(0, 3, 1, 2).float()
