"""Intervals of 95 %: the percentile bootstrap over prompts, and Wilson's interval of a rate.

Source: Efron, Annals of Statistics 7 (1979), the percentile method.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy.stats import binomtest, bootstrap

from .image_metrics import fid, kid

LEVEL = 0.95
RESAMPLES = 2000
FID_RESAMPLES = 100
"""Fewer, because each takes the roots of matrices."""
KID_RESAMPLES = 500
MAX_UNDEFINED = (1 - LEVEL) / 2
"""The share of resamples without a value above which there is no interval."""
Interval = tuple[float, float] | tuple[None, None]


def bootstrap_interval(
    paired: Sequence[np.ndarray] | np.ndarray,
    statistic: Callable[..., float | None],
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval:
    """Return the percentile interval of a statistic, (None, None) if there is none.

    There is none for one prompt, and if more than MAX_UNDEFINED of the resamples have no value:
    one end of the interval would rest on nothing.
    paired: an array [n], or several that are resampled at the same indices
    statistic: takes the arrays; None or a number that is not finite for no value
    """
    arrays = [paired] if getattr(paired, "ndim", 0) == 1 else list(paired)
    if len(arrays[0]) < 2:
        return None, None

    def as_number(*arrays: np.ndarray) -> float:
        value = statistic(*arrays)
        return np.nan if value is None else value

    # batches keep the memory small; each resample draws the same indices with any batch
    values = bootstrap(
        arrays,
        as_number,
        n_resamples=resamples,
        batch=100,
        vectorized=False,
        paired=True,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).bootstrap_distribution
    defined = values[np.isfinite(values)]
    if len(defined) < resamples * (1 - MAX_UNDEFINED):
        return None, None
    return _percentiles(defined)


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


def _prompt_indices(prompts: Sequence[str]) -> np.ndarray:
    """Return the index of each picture's prompt among the different prompts."""
    order = {prompt: index for index, prompt in enumerate(dict.fromkeys(prompts))}
    return np.array([order[prompt] for prompt in prompts])


def with_interval(values: np.ndarray, prompts: Sequence[str]) -> dict[str, Any]:
    """Return the mean of the pictures' values with its interval: value, low, high."""
    means = by_prompt(np.asarray(values, dtype=np.float64), prompts)
    low, high = bootstrap_interval(means, np.mean)
    return {"value": float(np.mean(means)), "low": low, "high": high}


def set_intervals(
    a: torch.Tensor, b: torch.Tensor, prompts: Sequence[str], seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Return FID and KID of two sets of features, each as value, low, high.

    a, b: features [n, d]; those at one index are of the prompt at that index
    """
    values = {"fid": fid(a, b), "kid": kid(a, b)}
    indices = _prompt_indices(prompts)
    n_prompts = indices.max() + 1
    if n_prompts < 2:
        return {name: {"value": value, "low": None, "high": None} for name, value in values.items()}
    rng = np.random.default_rng(seed)
    fids = []
    for resample in rng.integers(0, n_prompts, (FID_RESAMPLES, n_prompts)):
        rows = np.concatenate([np.flatnonzero(indices == index) for index in resample])
        fids.append(fid(a[rows], b[rows]))
    kids = []
    for resample in rng.integers(0, n_prompts, (KID_RESAMPLES, n_prompts)):
        weights = np.bincount(resample, minlength=n_prompts)[indices]
        if np.count_nonzero(weights) > 1:  # one picture alone has no pairs
            kids.append(kid(a, b, weights))
    # A resample has fewer different pictures, which makes FID larger: its interval is moved back.
    fids = np.array(fids) - np.mean(fids) + values["fid"]
    intervals = {"fid": _percentiles(fids), "kid": _percentiles(kids)}
    return {
        name: {"value": value, "low": intervals[name][0], "high": intervals[name][1]}
        for name, value in values.items()
    }


def _percentiles(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
