"""Intervals of 95 %: the percentile bootstrap over prompts, and Wilson's interval of a rate.

Source: Efron, Annals of Statistics 7 (1979), the percentile method.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.stats import binomtest

from .image_metrics import fid, kid

LEVEL = 0.95
RESAMPLES = 2000
FID_RESAMPLES = 100  # fewer, because each takes the roots of matrices
KID_RESAMPLES = 500
# The share of resamples without a value above which there is no interval.
MAX_UNDEFINED = (1 - LEVEL) / 2
Interval = tuple[float, float] | tuple[None, None]


def bootstrap_interval(
    paired: Sequence[np.ndarray] | np.ndarray,
    statistic: Callable[..., float | None],
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval:
    """Return the percentile interval of a statistic, (None, None) if there is none.

    paired: an array [n], or several that are resampled at the same indices
    statistic: takes the arrays; None or a number that is not finite for no value
    """
    arrays = [paired] if getattr(paired, "ndim", 0) == 1 else paired
    n = len(arrays[0])
    # one prompt says nothing of others
    if n < 2:
        return None, None

    def resampled(indices):
        return statistic(*(values[indices] for values in arrays))

    values = _resample(n, resampled, resamples, np.random.default_rng(seed))
    # with fewer values, one end of the interval would rest on nothing
    if len(values) < resamples * (1 - MAX_UNDEFINED):
        return None, None
    return _percentiles(values)


def _resample(n, statistic, resamples, rng):
    """Return the finite values of a statistic of indices, n drawn with replacement."""
    # not scipy's bootstrap: 2 to 3 times as slow, and it warns of statistics that may be undefined
    values = [statistic(indices) for indices in rng.integers(0, n, (resamples, n))]
    return np.array([value for value in values if value is not None and np.isfinite(value)])


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Return the score interval of a binomial rate, all of [0, 1] without trials.

    (p + z²/2n ± z √(p(1 − p)/n + z²/4n²)) / (1 + z²/n)
    Source: Wilson 1927, J. Am. Stat. Assoc. 22 (158), 209-212.
    """
    if not trials:
        return 0.0, 1.0
    interval = binomtest(successes, trials).proportion_ci(LEVEL, method="wilson")
    return float(interval.low), float(interval.high)


def by_prompt(values: np.ndarray, prompts: Sequence[str]) -> np.ndarray:
    """Return means over the pictures of each prompt; prompts are resampled, not pictures."""
    sums, counts = sums_by_prompt(values, prompts)
    return sums / counts


def sums_by_prompt(values: np.ndarray, prompts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return sums over the pictures of each prompt, and the numbers of these pictures."""
    indices = _prompt_indices(prompts)
    return np.bincount(indices, weights=values), np.bincount(indices)


def _prompt_indices(prompts):
    """Return the index of each picture's prompt among the different prompts."""
    order = {prompt: index for index, prompt in enumerate(dict.fromkeys(prompts))}
    return np.array([order[prompt] for prompt in prompts])


def with_interval(values: np.ndarray, prompts: Sequence[str]) -> dict:
    """Return the mean of the pictures' values with its interval: value, low, high."""
    means = by_prompt(np.asarray(values, dtype=np.float64), prompts)
    low, high = bootstrap_interval(means, np.mean)
    return {"value": float(np.mean(means)), "low": low, "high": high}


def rate_with_interval(hits: np.ndarray, prompts: Sequence[str]) -> dict:
    """Return the share of pictures that are hits with its interval: rate, low, high, count.

    hits: bool [n]
    """
    sums, counts = sums_by_prompt(hits, prompts)
    if 0 < sums.sum() < len(hits):
        low, high = bootstrap_interval(
            (sums, counts), lambda sums, counts: sums.sum() / counts.sum()
        )
    else:
        # all resamples are equal, and a bootstrap's interval would be one point; the prompts are
        # the trials, as everywhere here
        low, high = wilson(len(counts) if len(hits) and hits[0] else 0, len(counts))
    return {"rate": float(np.mean(hits)), "low": low, "high": high, "count": len(hits)}


def set_intervals(
    a: torch.Tensor, b: torch.Tensor, prompts: Sequence[str], seed: int = 0
) -> dict[str, dict]:
    """Return FID and KID of two sets of features, each as value, low, high.

    a, b: features [n, d]; those at one index are of the prompt at that index
    """
    rng = np.random.default_rng(seed)
    fids = set_interval(lambda rows: fid(a[rows], b[rows]), prompts, rng)
    kids = {"value": kid(a, b), "low": None, "high": None}
    indices = _prompt_indices(prompts)
    n_prompts = indices.max() + 1
    if n_prompts > 1:

        def resampled_kid(sample):
            weights = np.bincount(sample, minlength=n_prompts)[indices]
            # one picture alone has no pairs
            return kid(a, b, weights) if np.count_nonzero(weights) > 1 else None

        low, high = _percentiles(_resample(n_prompts, resampled_kid, KID_RESAMPLES, rng))
        kids |= {"low": low, "high": high}
    return {"fid": fids, "kid": kids}


def set_interval(
    distance: Callable[[np.ndarray], float],
    prompts: Sequence[str],
    rng: np.random.Generator | None = None,
) -> dict:
    """Return a distance of two sets of pictures with its interval: value, low, high.

    distance: takes the rows of both sets that count, one of them once or more often
    prompts: of each row; prompts are resampled
    """
    value = distance(np.arange(len(prompts)))
    indices = _prompt_indices(prompts)
    n_prompts = indices.max() + 1
    # one prompt says nothing of others
    if n_prompts < 2:
        return {"value": value, "low": None, "high": None}

    def resampled(sample):
        return distance(np.concatenate([np.flatnonzero(indices == prompt) for prompt in sample]))

    rng = np.random.default_rng(0) if rng is None else rng
    values = _resample(n_prompts, resampled, FID_RESAMPLES, rng)
    # a resample has fewer different pictures, which makes the distance larger: move it back
    low, high = _percentiles(values - values.mean() + value)
    return {"value": value, "low": low, "high": high}


def _percentiles(values):
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
