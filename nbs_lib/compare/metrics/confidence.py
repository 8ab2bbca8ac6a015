"""Intervals of 95 % by the bootstrap: the same statistic over prompts that are drawn again with replacement.

Source: Efron, Annals of Statistics 7 (1979), the percentile method.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from .image_metrics import fid, kid

LEVEL, DRAWS = 0.95, 2000
SET_DRAWS = 100
"""Draws for distances of sets, each of which takes the roots of matrices."""
Interval = tuple[float, float] | tuple[None, None]


def bootstrap_interval(
    paired: Sequence[np.ndarray] | np.ndarray,
    statistic: Callable[..., float | None],
    seed: int = 0,
    draws: int = DRAWS,
) -> Interval:
    """Percentile interval of a statistic.

    paired: an array [n], or several that belong together place by place: the same prompts are drawn from each.
    statistic: takes those arrays. (None, None) for one prompt, which says nothing of others, and where the statistic is
    undefined in more than a fortieth of the draws: one end of the interval would be made of nothing.
    """
    arrays = (
        [np.asarray(paired)]
        if getattr(paired, "ndim", 0) == 1
        else [np.asarray(values) for values in paired]
    )
    n = len(arrays[0])
    if n < 2:
        return None, None
    rng = np.random.default_rng(seed)
    found = [
        statistic(*(values[drawn] for values in arrays)) for drawn in rng.integers(0, n, (draws, n))
    ]
    defined = [value for value in found if value is not None and np.isfinite(value)]
    if len(defined) < draws * (1 - (1 - LEVEL) / 2):
        return None, None
    return _ends(defined)


def by_prompt(values: np.ndarray, prompts: Sequence[str]) -> np.ndarray:
    """Means over the pictures of each prompt: pictures of one prompt are not drawn apart."""
    sums, counts = sums_by_prompt(values, prompts)
    return sums / counts


def sums_by_prompt(values: np.ndarray, prompts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Sums over the pictures of each prompt, and how many these are."""
    places = {prompt: i for i, prompt in enumerate(dict.fromkeys(prompts))}
    where = np.array([places[prompt] for prompt in prompts])
    return np.bincount(where, weights=values), np.bincount(where)


def with_interval(values: np.ndarray, prompts: Sequence[str]) -> dict[str, Any]:
    """The mean of what is known of each picture: value, low, high."""
    means = by_prompt(np.asarray(values, dtype=np.float64), prompts)
    low, high = bootstrap_interval(means, np.mean)
    return {"value": float(np.mean(means)), "low": low, "high": high}


def set_interval(
    a: torch.Tensor, b: torch.Tensor, prompts: Sequence[str], seed: int = 0
) -> dict[str, dict[str, Any]]:
    """FID and KID of two sets of features [n, d], place i of both being a picture of prompts[i]: value, low, high of each.

    A set drawn with replacement has fewer pictures in it, which makes FID larger: its interval is moved back by what the
    draws are larger in the mean.
    """
    different = list(dict.fromkeys(prompts))
    places = [
        np.array([i for i, each in enumerate(prompts) if each == prompt]) for prompt in different
    ]
    rng, p = np.random.default_rng(seed), len(different)
    told = {"fid": {"value": fid(a, b)}, "kid": {"value": kid(a, b)}}
    if p < 2:
        return {name: each | {"low": None, "high": None} for name, each in told.items()}
    fids = []
    for drawn in rng.integers(0, p, (SET_DRAWS, p)):
        chosen = np.concatenate([places[i] for i in drawn])
        fids.append(fid(a[chosen], b[chosen]))
    kids = []
    for drawn in rng.integers(0, p, (DRAWS // 4, p)):
        times = np.bincount(drawn, minlength=p)
        weights = np.array([times[different.index(prompt)] for prompt in prompts])
        if np.count_nonzero(weights) > 1:  # of one picture alone there are no pairs
            kids.append(kid(a, b, weights))
    ends = {
        "fid": _ends(list(np.array(fids) - np.mean(fids) + told["fid"]["value"])),
        "kid": _ends(kids),
    }
    return {
        name: each | {"low": ends[name][0], "high": ends[name][1]} for name, each in told.items()
    }


def _ends(values: list[float]) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
