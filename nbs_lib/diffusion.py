"""The maths of diffusion and guidance: pure functions on tensors.

Symbols: x_t = alpha_t x_0 + sigma_t eps, with alpha_t² + sigma_t² = 1; v = alpha_t eps − sigma_t x_0; w the guidance scale.
Shapes: x, eps, v [n, c, h, w]; alpha, sigma [n, 1, 1, 1]; t [n].
"""

from hashlib import blake2b

import torch


def classifier_free_guidance(
    uncond: torch.Tensor, cond: torch.Tensor, w: float | torch.Tensor
) -> torch.Tensor:
    """uncond + w (cond − uncond); w = 1 is the conditional prediction itself. w: a number, or [n, 1, 1, 1].

    Source: classifier-free guidance, arXiv 2207.12598, in the form that diffusers samples with. It is linear in the
    prediction, so it holds for eps, v and x_0 of the same x_t alike.
    """
    return uncond + w * (cond - uncond)


def alpha_sigma(alphas_cumprod: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """alpha_t and sigma_t for timesteps t [n], shaped [n, 1, 1, 1]. alphas_cumprod: the schedule's, [T]."""
    squared = alphas_cumprod.to(t.device)[t].view(-1, 1, 1, 1)
    return squared.sqrt(), (1 - squared).sqrt()


def add_noise(
    x_0: torch.Tensor, eps: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor
) -> torch.Tensor:
    """x_t = alpha_t x_0 + sigma_t eps, also the step of DDIM (eta 0) to the noise level of alpha_t.

    Source: arXiv 2006.11239, eq. 4; arXiv 2010.02502, eq. 12.
    """
    return alpha * x_0 + sigma * eps


def get_velocity(
    x_0: torch.Tensor, eps: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor
) -> torch.Tensor:
    """v = alpha_t eps − sigma_t x_0. Source: arXiv 2202.00512, appendix D."""
    return alpha * eps - sigma * x_0


def to_eps(
    prediction: torch.Tensor,
    x_t: torch.Tensor,
    alpha: torch.Tensor,
    sigma: torch.Tensor,
    prediction_type: str,
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
    raise ValueError(
        f"prediction type: given {prediction_type!r}; allowed is epsilon, v_prediction or sample"
    )


def to_x_0(
    prediction: torch.Tensor,
    x_t: torch.Tensor,
    alpha: torch.Tensor,
    sigma: torch.Tensor,
    prediction_type: str,
) -> torch.Tensor:
    """The clean latents that a prediction says x_t was made from: alpha x_t − sigma v, or (x_t − sigma eps) / alpha."""
    if prediction_type == "v_prediction":
        return alpha * x_t - sigma * prediction
    return (x_t - sigma * to_eps(prediction, x_t, alpha, sigma, prediction_type)) / alpha


def min_snr_weight(
    alpha: torch.Tensor, sigma: torch.Tensor, gamma: float, prediction_type: str
) -> torch.Tensor:
    """Weight of a squared error stated in the prediction's own space, so that in x_0 it is min(SNR, gamma).

    With SNR = alpha² / sigma²: eps² = SNR x_0² and v² = (SNR + 1) x_0², so the weights are min(SNR, gamma) / SNR and
    min(SNR, gamma) / (SNR + 1). gamma 0: all ones. Source: arXiv 2303.09556, sec. 3.4.
    """
    if not gamma:
        return torch.ones_like(alpha)
    snr = alpha.square() / sigma.square()
    own = {"epsilon": snr, "v_prediction": snr + 1, "sample": torch.ones_like(snr)}[prediction_type]
    return snr.clamp(max=gamma) / own


def pseudo_huber(a: torch.Tensor, b: torch.Tensor, c: float) -> torch.Tensor:
    """sqrt((a − b)² + c²) − c, element by element. Source: arXiv 2310.14189, sec. 3.3."""
    return ((a - b).square() + c * c).sqrt() - c


def boundary_scalings(
    t: torch.Tensor, sigma_data: float = 0.5, scaling: float = 10.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """c_skip and c_out of a consistency function, [n, 1, 1, 1] fp32: 1 and 0 at t = 0, so that it is the identity there.

    Source: arXiv 2310.04378, sec. 4.1; the constants are those of diffusers' LCMScheduler.
    """
    scaled = t.view(-1, 1, 1, 1).float() * scaling
    total = scaled.square() + sigma_data**2
    return sigma_data**2 / total, scaled / total.sqrt()


def noise_like(seed: int, key: str, draw: int, shape: tuple[int, ...]) -> torch.Tensor:
    """The noise of one kept answer, fp32 on the CPU, from its example's key: remembered by name instead of as an array."""
    digest = blake2b(f"{seed} {key} {draw}".encode(), digest_size=7).digest()
    return torch.randn(shape, generator=torch.Generator().manual_seed(int.from_bytes(digest)))
