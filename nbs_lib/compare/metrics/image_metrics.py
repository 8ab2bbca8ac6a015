"""What pictures are worth, as pure functions: how near they are to the guided ones, to their prompts, to a set of pictures.

Values are by picture where there are any, so that an interval can be taken over prompts; see `intervals`.
"""

import numpy as np
import torch
from torchmetrics.functional.image import structural_similarity_index_measure
from torchmetrics.image.fid import FrechetInceptionDistance

from ...picturebook.caption_ranking import caption_ranked_first

__all__ = [
    "caption_ranked_first",
    "clip_score",
    "fid",
    "guidance_recovered",
    "kid",
    "latent_mse",
    "psnr",
    "recovered_by_picture",
    "squared_error",
    "ssim",
]


def guidance_recovered(unguided: float, guided: float, tuned: float) -> float | None:
    """(tuned − unguided) / (guided − unguided): the share of guidance's gain that tuned keeps; None where there is none."""
    return (tuned - unguided) / (guided - unguided) if guided > unguided else None


def recovered_by_picture(
    unguided: np.ndarray, guided: np.ndarray, tuned: np.ndarray
) -> float | None:
    """`guidance_recovered` of the three rates, from what is true of each picture: three bool arrays [n]."""
    return guidance_recovered(
        float(np.mean(unguided)), float(np.mean(guided)), float(np.mean(tuned))
    )


def latent_mse(a: torch.Tensor, b: torch.Tensor) -> np.ndarray:
    """Mean squared difference of final latents [n, c, h, w], by picture: [n]."""
    return (a - b).square().flatten(1).mean(1).numpy()


def squared_error(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Mean squared difference of pictures uint8 [n, h, w, 3], by picture: [n]."""
    return np.square(a.astype(np.float64) - b).reshape(len(a), -1).mean(1)


def psnr(errors: np.ndarray) -> float:
    """Peak signal to noise in dB over all pixels, from `squared_error`; infinite where there is none."""
    error = float(np.mean(errors))
    return 10 * float(np.log10(255**2 / error)) if error else float("inf")


def ssim(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Structural similarity of pictures uint8 [n, h, w, 3], by picture: [n]; 1 where they are equal."""
    planes = [torch.tensor(images).permute(0, 3, 1, 2).float() for images in (a, b)]
    # one picture comes without its axis
    return (
        structural_similarity_index_measure(*planes, data_range=255.0, reduction="none")
        .reshape(-1)
        .numpy()
    )


def clip_score(images: torch.Tensor, texts: torch.Tensor) -> np.ndarray:
    """100 times the cosine of pictures and their texts, 0 where it is negative, by picture: [n].

    images, texts: a CLIP's features on the unit sphere, [n, d]. Source: arXiv 2104.08718, without its factor of 2.5.
    """
    return 100 * (images * texts).sum(1).clamp(min=0).numpy()


class Features(torch.nn.Module):
    """Features that are there already, where torchmetrics asks for a network that makes them."""

    def __init__(self, num_features: int):
        super().__init__()
        self.num_features = num_features

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features


def fid(a: torch.Tensor, b: torch.Tensor) -> float:
    """Fréchet distance of two sets of features [n, d] and [m, d], two pictures or more in each. Lower is nearer; it grows where
    there are few pictures. Source: arXiv 1706.08500, in the space of another network than Inception."""
    metric = FrechetInceptionDistance(feature=Features(a.shape[1]))
    metric.update(b.double(), real=True)
    metric.update(a.double(), real=False)
    return float(metric.compute())


def kid(a: torch.Tensor, b: torch.Tensor, weights: np.ndarray | None = None) -> float:
    """Squared maximum mean discrepancy of two sets of as many features [n, d] on the unit sphere, place i of both being of one
    prompt, with the kernel (x·y + 1)³. Unbiased: it may be a little below 0. weights: how often each place is there.

    The two pictures of one prompt are alike, which pictures of two prompts are not, so only pairs of different places count,
    across the sets too; torchmetrics' own is for sets that do not belong together. Source: arXiv 1801.01401, with the factor
    1 of x·y in the place of 1 / d, which leaves nothing but the means of such features.
    """
    n = np.ones(len(a)) if weights is None else weights.astype(np.float64)
    x, y = a.double().numpy(), b.double().numpy()
    apart = np.outer(n, n)
    np.fill_diagonal(apart, 0)
    of_x, of_y, across = (
        (apart * (p @ q.T + 1) ** 3).sum() / apart.sum() for p, q in ((x, x), (y, y), (x, y))
    )
    return float(of_x + of_y - 2 * across)
