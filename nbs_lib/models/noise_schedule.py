"""The noise schedule of a base: the noise levels of its timesteps, and what is predicted there."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from diffusers.schedulers import KarrasDiffusionSchedulers
from torch import Tensor

from ..config.contenders import FLOW_SAMPLERS
from ..diffusion import (
    distillation_weight,
    few_step_timesteps,
    get_velocity,
    to_eps,
    to_x_0,
)
from ..flow import flow_distillation_weight, flow_velocity
from .checks.headers import FileError
from .components import unusable_base

FLOW = "flow_prediction"  # diffusers' name of the prediction type
# The schedulers with DDPM's noise levels. Those of flows and EDM add noise in other ways.
DIFFUSION_SCHEDULERS = (
    *(kind.name for kind in KarrasDiffusionSchedulers if kind.name != "EDMEulerScheduler"),
    "DDIMInverseScheduler",
    "DDIMParallelScheduler",
    "DDPMParallelScheduler",
    "DPMSolverMultistepInverseScheduler",
    "LCMScheduler",
    "SASolverScheduler",
    "TCDScheduler",
)
FLOW_SCHEDULER = FLOW_SAMPLERS[0]  # of a flow whose levels are those of its scheduler
ALLOWED = (
    "flows of a UNet and EDM are not supported; "
    "allowed is a base that predicts epsilon, v_prediction or sample"
)
# The least alpha² with which fp32 recovers a picture from its noise. Real last levels are 0.005.
MIN_SIGNAL = 1e-12


@dataclass(frozen=True)
class NoiseSchedule:
    """The noise levels of T timesteps, and the type of the denoiser's prediction.

    Timesteps are whole numbers from 0, with hardly any noise, to T − 1. A flow's denoiser reads
    T sigma instead, which is no whole number; a timestep in floating point is taken for it.

    alphas, sigmas: [T], so that x_t = alphas[t] x_0 + sigmas[t] eps
    prediction_type: epsilon, v_prediction, sample or flow_prediction
    """

    alphas: Tensor
    sigmas: Tensor
    prediction_type: str

    @classmethod
    def diffusion(cls, alphas_cumprod: Tensor, prediction_type: str) -> "NoiseSchedule":
        """Return the schedule of a diffusion. alphas_cumprod: alpha², [T]."""
        return cls(alphas_cumprod.sqrt(), (1 - alphas_cumprod).sqrt(), prediction_type)

    @classmethod
    def flow(cls, sigmas: Tensor) -> "NoiseSchedule":
        """Return the schedule of a flow on straight paths. sigmas: rising, [T]."""
        return cls(1 - sigmas, sigmas, FLOW)

    def __len__(self) -> int:
        return len(self.sigmas)

    @property
    def is_flow(self) -> bool:
        """Return True for a flow on straight paths."""
        return self.prediction_type == FLOW

    @property
    def device(self) -> torch.device:
        """Return the device of the noise levels."""
        return self.sigmas.device

    def to(self, device: torch.device | str) -> "NoiseSchedule":
        """Return the schedule on a device."""
        return NoiseSchedule(self.alphas.to(device), self.sigmas.to(device), self.prediction_type)

    def times(self, t: Tensor) -> Tensor:
        """Return what a denoiser reads for timesteps t [n]."""
        if not self.is_flow or t.is_floating_point():
            return t
        return self.sigmas[t] * len(self)

    def levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return alpha and sigma [n, 1, 1, 1] at timesteps t [n]."""
        if t.is_floating_point():
            sigma = (t / len(self)).view(-1, 1, 1, 1)
            return 1 - sigma, sigma
        return self.alphas[t].view(-1, 1, 1, 1), self.sigmas[t].view(-1, 1, 1, 1)

    def eps(self, prediction: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Return the noise that a prediction stands for."""
        return to_eps(prediction, x_t, *self.levels(t), self.prediction_type)

    def x_0(self, prediction: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Return the clean latents that a prediction stands for."""
        return to_x_0(prediction, x_t, *self.levels(t), self.prediction_type)

    def target(self, x_0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Return the right prediction for latents that were noised with eps."""
        targets = {
            "epsilon": lambda: eps,
            "v_prediction": partial(get_velocity, x_0, eps, *self.levels(t)),
            "sample": lambda: x_0,
            FLOW: partial(flow_velocity, x_0, eps),
        }
        return targets[self.prediction_type]()

    def comparable(self, prediction: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Return a prediction in the space in which distillation compares: eps, of a flow v.

        At the last timestep of a flow x_t is its noise, and any prediction has the right eps.
        """
        return prediction if self.is_flow else self.eps(prediction, x_t, t)

    def comparable_target(self, x_0: Tensor, eps: Tensor) -> Tensor:
        """Return the right prediction in that space for latents that were noised with eps."""
        return flow_velocity(x_0, eps) if self.is_flow else eps

    def distillation_weight(self, t: Tensor, weighting: str) -> Tensor:
        """Return the weight of a squared error in that space, [n, 1, 1, 1].

        weighting: snr, truncated_snr or snr_plus_one
        """
        alpha, sigma = self.levels(t)
        if self.is_flow:
            return flow_distillation_weight(sigma, weighting)
        return distillation_weight(alpha, weighting)

    def few_step_timesteps(self, steps: int) -> Tensor:
        """Return the timesteps of a sampling in few steps, the noisiest first, int64 [steps]."""
        return few_step_timesteps(steps, len(self), self.is_flow).to(self.device)


def check_diffusion_schedule(name: str, settings: dict[str, Any], build: Callable[[], Any]):
    """Check that a scheduler has DDPM's noise levels, and that they suit the prediction type.

    name: of the base, for errors
    settings: of the scheduler
    build: returns the scheduler, because only its class computes the levels

    Errors: FileError if the levels are damaged; BaseError for another kind of noise
    """
    scheduler_class = settings.get("_class_name", "DDIMScheduler")
    if scheduler_class not in DIFFUSION_SCHEDULERS or settings.get("use_flow_sigmas"):
        reason = f"its scheduler is {scheduler_class!r:.60}, which mixes no noise by levels of DDPM"
        raise unusable_base(name, f"{reason}; {ALLOWED}")
    prediction_type = settings.get("prediction_type", "epsilon")
    if prediction_type == FLOW:
        reason = f"its UNet predicts a flow (prediction_type is {prediction_type!r})"
        raise unusable_base(name, f"{reason}; {ALLOWED}")
    scheduler = build()
    levels = scheduler.alphas_cumprod
    steps = scheduler.config.num_train_timesteps
    if len(levels) != steps or not bool(((levels >= 0) & (levels <= 1)).all()):
        raise FileError(f"its {len(levels)} noise levels are not {steps} numbers between 0 and 1")
    if prediction_type == "epsilon" and float(levels.min()) < MIN_SIGNAL:
        raise unusable_base(
            name,
            "its UNet predicts epsilon, and its noise schedule ends without any signal (zero "
            "terminal SNR), where that says nothing of the picture; allowed are v_prediction and "
            "sample with such a schedule, or another one (rescale_betas_zero_snr: false in "
            "scheduler/scheduler_config.json), as the base was trained",
        )


def check_flow_settings(settings: dict[str, Any]):
    """Check that a scheduler's settings are those of a flow whose noise levels are fixed.

    Errors: FileError
    """
    name = settings.get("_class_name", FLOW_SCHEDULER)
    if name != FLOW_SCHEDULER:
        raise FileError(f"it is {name!r:.60}, allowed is {FLOW_SCHEDULER}")
    for setting in ("use_dynamic_shifting", "invert_sigmas"):
        if settings.get(setting):
            raise FileError(f"its {setting} is true, allowed is false")
