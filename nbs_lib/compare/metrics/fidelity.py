"""Fidelity to guided: how near a contender's pictures are to guided's from the same noise.

A distance belongs to a picture: to guided's picture of the same prompt and seed. In latents it is
the mean squared difference (`image_metrics.latent_mse`), in the features of a vision model
1 − cosine (`feature_distance`).
"""

from collections.abc import Sequence

import numpy as np
import torch

from .confidence import bootstrap_interval, by_prompt


def feature_distance(a: torch.Tensor, b: torch.Tensor) -> np.ndarray:
    """Return 1 − the cosine of features on the unit sphere [n, d], by picture: [n], 0 to 2."""
    # rounding may lead a little below 0
    return (1 - (a.double() * b.double()).sum(1)).clamp(min=0).numpy()


def distance_ratio(distances: np.ndarray, unguided: np.ndarray) -> float | None:
    """Return a contender's mean distance to guided over unguided's, None if the latter is 0.

    0 means guided's own pictures, 1 pictures that are no nearer than unguided's on the whole. The
    ratio is of means, not a mean of ratios: a picture that guidance leaves almost as it is would
    outweigh all others in that.

    distances, unguided: to guided, of the same prompts: [n]
    """
    mean = float(np.mean(unguided))
    return float(np.mean(distances)) / mean if mean else None


def ratio_with_interval(
    distances: np.ndarray, unguided: np.ndarray, prompts: Sequence[str]
) -> dict | None:
    """Return `distance_ratio` with its interval: value, low, high; None if it is not defined.

    prompts: of each picture; both sides of the ratio are resampled together, by prompt
    """
    paired = [by_prompt(values, prompts) for values in (distances, unguided)]
    value = distance_ratio(*paired)
    if value is None:
        return None
    low, high = bootstrap_interval(paired, distance_ratio)
    return {"value": value, "low": low, "high": high}
