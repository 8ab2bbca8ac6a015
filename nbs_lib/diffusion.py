"""The maths of diffusion and guidance: pure functions on tensors.

Symbols: x_t = alpha_t x_0 + sigma_t eps, with alpha_t² + sigma_t² = 1; w the guidance scale.
"""

import torch


def guided(eps_uncond: torch.Tensor, eps_cond: torch.Tensor, w: float) -> torch.Tensor:
    """eps_uncond + w (eps_cond − eps_uncond); w = 1 is the conditional prediction itself.

    Source: classifier-free guidance, arXiv 2207.12598, in the form that diffusers samples with.
    """
    return eps_uncond + w * (eps_cond - eps_uncond)


def alpha_sigma(alphas_cumprod: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """alpha_t and sigma_t for timesteps t [n], shaped [n, 1, 1, 1]. alphas_cumprod: the schedule's, [T]."""
    squared = alphas_cumprod.to(t.device)[t].view(-1, 1, 1, 1)
    return squared.sqrt(), (1 - squared).sqrt()


def noised(x_0: torch.Tensor, eps: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """x_t = alpha_t x_0 + sigma_t eps. Source: arXiv 2006.11239, eq. 4."""
    return alpha * x_0 + sigma * eps


def to_eps(
    prediction: torch.Tensor, x_t: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor, prediction_type: str
) -> torch.Tensor:
    """The noise that a prediction says is in x_t; prediction_type as in diffusers' schedulers.

    v = alpha eps − sigma x_0, so eps = sigma x_t + alpha v. Source: arXiv 2202.00512, appendix D.
    """
    if prediction_type == "epsilon":
        return prediction
    if prediction_type == "v_prediction":
        return sigma * x_t + alpha * prediction
    if prediction_type == "sample":
        return (x_t - alpha * prediction) / sigma
    raise ValueError(f"prediction type: given {prediction_type!r}; allowed is epsilon, v_prediction or sample")
