"""The maths of diffusion and guidance: pure functions on tensors.

Symbols: x_t = alpha_t x_0 + sigma_t eps; w the guidance scale. Diffusion has
alpha_t² + sigma_t² = 1 and v = alpha_t eps − sigma_t x_0; a flow has alpha_t = 1 − sigma_t and
v = eps − x_0, see `flow`.
Shapes: x, eps, v [n, c, h, w]; alpha, sigma [n, 1, 1, 1]; t [n].
"""

from hashlib import blake2b

import torch

# Of a single sampling step: at the last timestep an error of eps counts sigma / alpha times in x_0,
# which is 15 with Stable Diffusion's schedule, and here 1.2.
# Source: the one-step generator of DMD2, arXiv 2405.14867, which takes the same
ONE_STEP = 399
# At Stable Diffusion's last timesteps 1 / alpha² is 200: a few examples would be the whole gradient
LARGEST_WEIGHT = 20.0


def classifier_free_guidance(
    uncond: torch.Tensor, cond: torch.Tensor, w: float | torch.Tensor
) -> torch.Tensor:
    """Return uncond + w (cond − uncond).

    w: a number or [n, 1, 1, 1]; 1 gives the conditional prediction

    Source: classifier-free guidance, arXiv 2207.12598, in the form that diffusers samples with.
    """
    # linear in the prediction, so it holds alike for eps, either v and x_0 of the same x_t
    return uncond + w * (cond - uncond)


def alpha_sigma(alphas_cumprod: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return alpha_t and sigma_t, [n, 1, 1, 1] each.

    alphas_cumprod: of the noise schedule, [T]
    """
    squared = alphas_cumprod.to(t.device)[t].view(-1, 1, 1, 1)
    return squared.sqrt(), (1 - squared).sqrt()


def add_noise(
    x_0: torch.Tensor, eps: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor
) -> torch.Tensor:
    """Return x_t = alpha_t x_0 + sigma_t eps, which is also a step of DDIM (eta 0) to alpha_t.

    Source: arXiv 2006.11239, eq. 4; arXiv 2010.02502, eq. 12.
    """
    return alpha * x_0 + sigma * eps


def get_velocity(
    x_0: torch.Tensor, eps: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor
) -> torch.Tensor:
    """Return v = alpha_t eps − sigma_t x_0. Source: arXiv 2202.00512, appendix D."""
    return alpha * eps - sigma * x_0


def to_eps(
    prediction: torch.Tensor,
    x_t: torch.Tensor,
    alpha: torch.Tensor,
    sigma: torch.Tensor,
    prediction_type: str,
) -> torch.Tensor:
    """Return the noise in x_t according to a prediction.

    Diffusion: v = alpha eps − sigma x_0, so eps = sigma x_t + alpha v. Flow: eps = x_t + alpha v.

    prediction_type: epsilon, v_prediction, sample or flow_prediction, as in diffusers' schedulers

    Source: arXiv 2202.00512, appendix D.
    """
    if prediction_type == "epsilon":
        return prediction
    if prediction_type == "v_prediction":
        return sigma * x_t + alpha * prediction
    if prediction_type == "flow_prediction":
        return x_t + alpha * prediction
    if prediction_type == "sample":
        return (x_t - alpha * prediction) / sigma
    raise ValueError(
        f"prediction type: given {prediction_type!r}; "
        "allowed is epsilon, v_prediction, sample or flow_prediction"
    )


def to_x_0(
    prediction: torch.Tensor,
    x_t: torch.Tensor,
    alpha: torch.Tensor,
    sigma: torch.Tensor,
    prediction_type: str,
) -> torch.Tensor:
    """Return the clean latents in x_t.

    They are alpha x_t − sigma v, of a flow x_t − sigma v, else (x_t − sigma eps) / alpha.
    """
    # without the division, which fails for v at the last timestep of a zero terminal SNR schedule
    if prediction_type == "v_prediction":
        return alpha * x_t - sigma * prediction
    if prediction_type == "flow_prediction":
        return x_t - sigma * prediction
    return (x_t - sigma * to_eps(prediction, x_t, alpha, sigma, prediction_type)) / alpha


def min_snr_weight(
    alpha: torch.Tensor, sigma: torch.Tensor, gamma: float, prediction_type: str
) -> torch.Tensor:
    """Return the min-SNR weight of a squared error, [n, 1, 1, 1]; see `weight_by_snr`."""
    return weight_by_snr(alpha.square() / sigma.square(), gamma, prediction_type)


def weight_by_snr(snr: torch.Tensor, gamma: float, prediction_type: str) -> torch.Tensor:
    """Return the weight of a squared error that makes it min(SNR, gamma) in x_0's space.

    eps² = SNR x_0² and v² = (SNR + 1) x_0², so the weights are min(SNR, gamma) / SNR and
    min(SNR, gamma) / (SNR + 1). A flow has v² = x_0² / sigma², and 1 / sigma = 1 + sqrt(SNR).

    snr: alpha² / sigma²
    gamma: 0 gives ones

    Source: arXiv 2303.09556, sec. 3.4.
    """
    ones = torch.ones_like(snr)
    if not gamma:
        return ones
    # how much larger the error is in the prediction's own space
    scales = {
        "epsilon": snr,
        "v_prediction": snr + 1,
        "sample": ones,
        "flow_prediction": (1 + snr.sqrt()).square(),
    }
    return snr.clamp(max=gamma) / scales[prediction_type]


def distillation_weight(alpha: torch.Tensor, weighting: str) -> torch.Tensor:
    """Return the weight of a squared error of eps, of alpha's shape, LARGEST_WEIGHT at most.

    Of x_0's squared error it is SNR, max(SNR, 1) or SNR + 1, with SNR = alpha² / (1 − alpha²);
    eps² = SNR x_0², so of eps's it is 1, max(1, 1 / SNR) or 1 / alpha².

    weighting: snr, truncated_snr or snr_plus_one

    Source: arXiv 2202.00512, sec. 4.
    """
    squared = alpha.square()
    weights = {
        "snr": torch.ones_like(squared),
        "truncated_snr": ((1 - squared) / squared).clamp(min=1),
        "snr_plus_one": 1 / squared,
    }
    return weights[weighting].clamp(max=LARGEST_WEIGHT)


def pseudo_huber(a: torch.Tensor, b: torch.Tensor, c: float) -> torch.Tensor:
    """Return sqrt((a − b)² + c²) − c for each element. Source: arXiv 2310.14189, sec. 3.3."""
    return ((a - b).square() + c * c).sqrt() - c


def boundary_scalings(
    t: torch.Tensor, sigma_data: float = 0.5, scaling: float = 10.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return c_skip and c_out of a consistency function, fp32 [n, 1, 1, 1].

    They are 1 and 0 at t = 0, where the function is the identity.

    Source: arXiv 2310.04378, sec. 4.1; the constants are those of diffusers' LCMScheduler.
    """
    scaled = t.view(-1, 1, 1, 1).float() * scaling
    total = scaled.square() + sigma_data**2
    return sigma_data**2 / total, scaled / total.sqrt()


def few_step_timesteps(steps: int, n_timesteps: int = 1000, is_flow: bool = False) -> torch.Tensor:
    """Return the timesteps of a sampling in few steps, the noisiest one first, int64 [steps].

    They are those of diffusers' schedulers with timestep_spacing "trailing", except that a single
    step of diffusion, which begins at pure noise as well, is at ONE_STEP.

    Source: arXiv 2305.08891, table 2.
    """
    # a flow's v points at a picture in pure noise too
    if steps == 1 and not is_flow:
        return torch.tensor([ONE_STEP])
    spaced = n_timesteps - torch.arange(steps, dtype=torch.float64) * n_timesteps / steps
    return spaced.round().long() - 1


def matching_gradient(
    x_0: torch.Tensor, real: torch.Tensor, fake: torch.Tensor, smallest: float = 1e-3
) -> torch.Tensor:
    """Return the direction in which x_0 is to move, downhill, [n, c, h, w].

    It is the difference of two scores, of the distribution of x_0 and of the one to match, each
    given by its guess of the clean latents, and divided by the mean distance to the latter.

    x_0: generated latents
    real: the guided teacher's guess of them, after they were noised
    fake: the fake score's guess of the same
    smallest: lower limit of the divisor

    Source: arXiv 2311.18828, eq. 7 and 8; between noise levels of a trajectory arXiv 2503.06674.
    """
    distance = (x_0 - real).abs().flatten(1).mean(1).clamp(min=smallest)
    return (fake - real) / distance.view(-1, 1, 1, 1)


def noise_like(seed: int, key: str, draw: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Return the noise of one cached teacher prediction, fp32 on the CPU.

    key: of its example
    draw: number of the prediction among those of its example
    """
    # recomputed from its name whenever it is needed, because the noise itself would fill the cache
    # not Python's hash(), which differs between processes
    digest = blake2b(f"{seed} {key} {draw}".encode(), digest_size=7).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest))
    return torch.randn(shape, generator=generator)
