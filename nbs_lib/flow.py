"""The maths of flows on straight paths from data to noise: pure functions on tensors.

Symbols: x_t = (1 − sigma) x_0 + sigma eps; v = eps − x_0. Conversions of v to x_0 and eps, and its
guidance, are in `diffusion`, where alpha is 1 − sigma.
Shapes: x_0, eps, v [n, c, h, w]; sigma [n, 1, 1, 1] or [T].

Source: rectified flow, arXiv 2209.03003; Stable Diffusion 3, arXiv 2403.03206.
"""

import torch


def flow_velocity(x_0: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
    """Return v = eps − x_0, which is dx_t / dsigma. Source: arXiv 2403.03206, eq. 13."""
    return eps - x_0


def shift_sigma(sigma: torch.Tensor, shift: float) -> torch.Tensor:
    """Return a flow's noise levels for pictures of `shift`² times as many pixels.

    More pixels of one thing hide it less under the same noise. 0 and 1 stay.

    Source: arXiv 2403.03206, eq. 23.
    """
    return shift * sigma / (1 + (shift - 1) * sigma)


def logit_normal_timesteps(normal: torch.Tensor, n_timesteps: int) -> torch.Tensor:
    """Return timesteps of which those in the middle are the most frequent, int64 [n].

    normal: standard normal numbers [n]; their logistic function is the share of all timesteps

    Source: arXiv 2403.03206, sec. 3.1, with m = 0 and s = 1.
    """
    # in fp64, where the logistic function stays below 1
    return (normal.double().sigmoid() * n_timesteps).long().clamp(max=n_timesteps - 1)


def flow_distillation_weight(sigma: torch.Tensor, weighting: str) -> torch.Tensor:
    """Return the weight of a squared error of a flow's v, of sigma's shape.

    Of x_0's squared error it is as in `distillation_weight`; x_0² = sigma² v², so nothing needs a
    limit.

    weighting: snr, truncated_snr or snr_plus_one
    """
    signal = (1 - sigma).square()
    noise = sigma.square()
    weights = {
        "snr": signal,
        "truncated_snr": torch.maximum(signal, noise),
        "snr_plus_one": signal + noise,
    }
    return weights[weighting]
