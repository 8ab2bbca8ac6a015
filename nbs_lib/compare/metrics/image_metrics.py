"""Image metrics, as pure functions: distances to the guided pictures, to prompts, to a set.

Most return a value for each picture, so that `confidence` can take an interval over prompts.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torchmetrics.functional.image import structural_similarity_index_measure
from torchmetrics.image.fid import FrechetInceptionDistance

SSIM_BATCH = 16  # pictures
# The width of CMMD's kernel and the factor that makes its values readable.
CMMD_SIGMA, CMMD_SCALE = 10.0, 1000.0


def guidance_recovered(
    unguided: float,
    guided: float,
    tuned: float,
) -> float | None:
    """Return the share of guidance's gain that tuned keeps, None if guidance gains nothing.

    (tuned − unguided) / (guided − unguided)
    """
    return (tuned - unguided) / (guided - unguided) if guided > unguided else None


def recovered_by_picture(
    unguided: np.ndarray,
    guided: np.ndarray,
    tuned: np.ndarray,
) -> float | None:
    """Return `guidance_recovered` of three rates, from the hits of each picture: arrays [n]."""
    rates = [float(np.mean(hits)) for hits in (unguided, guided, tuned)]
    return guidance_recovered(*rates)


def latent_mse(a: torch.Tensor, b: torch.Tensor) -> np.ndarray:
    """Return the mean squared difference of final latents [n, c, h, w], by picture: [n]."""
    return (a - b).square().flatten(1).mean(1).numpy()


def ssim(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the structural similarity of pictures uint8 [n, h, w, 3], by picture: [n], 1 at most.

    Source: Wang et al., IEEE Transactions on Image Processing 13 (2004).
    """
    values = []
    for start in range(0, len(a), SSIM_BATCH):
        # in batches: hundreds of large pictures at once would take many gigabytes
        batch = [images[start : start + SSIM_BATCH] for images in (a, b)]
        planes = [torch.tensor(images).permute(0, 3, 1, 2).float() for images in batch]
        value = structural_similarity_index_measure(*planes, data_range=255.0, reduction="none")
        # torchmetrics drops the axis of a single picture
        values.append(value.reshape(-1).numpy())
    return np.concatenate(values)


def diversity(latents: torch.Tensor, prompts: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Return the mean distance between pictures of one prompt, by prompt: [m], and these prompts.

    The distance is the root mean square difference of final latents. Prompts with one picture have
    none, and are left out.

    latents: [n, c, h, w]
    prompts: of each picture
    """
    indices = {prompt: [] for prompt in prompts}
    for index, prompt in enumerate(prompts):
        indices[prompt].append(index)
    values = {}
    for prompt, rows in indices.items():
        if len(rows) > 1:
            pictures = latents[rows].flatten(1)
            values[prompt] = float(torch.pdist(pictures).mean()) / pictures.shape[1] ** 0.5
    return np.array(list(values.values())), list(values)


def clip_score(images: torch.Tensor, texts: torch.Tensor) -> np.ndarray:
    """Return 100 times the cosine of pictures and their texts, 0 if negative, by picture: [n].

    images, texts: features of a CLIP on the unit sphere, [n, d]
    Source: arXiv 2104.08718, without its factor of 2.5.
    """
    return 100 * (images * texts).sum(1).clamp(min=0).numpy()


class PrecomputedFeatures(torch.nn.Module):
    """The network that torchmetrics asks for, where the features are already computed."""

    def __init__(self, num_features: int):
        super().__init__()
        self.num_features = num_features

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the features."""
        return features


def fid(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the Fréchet distance of two sets of features, lower for nearer sets.

    a, b: [n, d] and [m, d], two pictures or more in each. Few pictures make it larger.
    Source: arXiv 1706.08500, in the space of another network than Inception.
    """
    # in double: the root of a covariance of few pictures loses digits in fp32
    metric = FrechetInceptionDistance(feature=PrecomputedFeatures(a.shape[1]))
    metric.update(b.double(), real=True)
    metric.update(a.double(), real=False)
    return float(metric.compute())


def kid(
    a: torch.Tensor,
    b: torch.Tensor,
    weights: np.ndarray | None = None,
) -> float:
    """Return the squared maximum mean discrepancy of two sets, with the kernel (x·y + 1)³.

    It is unbiased, so it may be a little below 0.
    a, b: features [n, d] on the unit sphere, those at the same index of one prompt
    weights: how often each index counts, [n]; None for once
    Source: arXiv 1801.01401, with the factor 1 of x·y instead of 1 / d, which leaves nothing but
    the means of such features.
    """
    n = np.ones(len(a)) if weights is None else weights.astype(np.float64)
    x = a.double().numpy()
    y = b.double().numpy()
    # Two pictures of one prompt are alike, so pairs at the same index count nowhere, not across
    # the sets either. torchmetrics' KID is for sets that do not belong together.
    pair_weights = np.outer(n, n)
    np.fill_diagonal(pair_weights, 0)

    def mean_kernel(p, q):
        return (pair_weights * (p @ q.T + 1) ** 3).sum() / pair_weights.sum()

    return float(mean_kernel(x, x) + mean_kernel(y, y) - 2 * mean_kernel(x, y))


def cmmd(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the CLIP maximum mean discrepancy of two sets, lower for nearer sets.

    1000 (mean k(a, a) + mean k(b, b) − 2 mean k(a, b)), k(x, y) = exp(−|x − y|² / (2 · 10²)), with
    each vector's pair with itself, as its authors compute it: few pictures make it larger.
    a, b: features of a CLIP on the unit sphere, [n, d] and [m, d]
    Source: arXiv 2401.09603, sec. 5.
    """

    def mean_kernel(x, y):
        # not by torch.cdist, whose root loses the digits of near vectors
        squares = x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T
        return (-squares / (2 * CMMD_SIGMA**2)).exp().mean()

    a, b = a.double(), b.double()
    return float(CMMD_SCALE * (mean_kernel(a, a) + mean_kernel(b, b) - 2 * mean_kernel(a, b)))


def joint_coordinates(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return two sets of vectors in an orthonormal basis of the space that they span together.

    Distances, means and spreads stay as they are, and fewer pictures than features make smaller
    covariances, whose roots are found many times faster.
    a, b: [n, d] and [m, d]; the result has d or n + m columns, whichever is less, in fp64
    """
    rows = torch.cat([a, b]).double()
    if len(rows) >= rows.shape[1]:
        return a.double(), b.double()
    basis = torch.linalg.qr(rows.T).Q
    return a.double() @ basis, b.double() @ basis
