"""What is learned: the guided prediction of the teacher, in one pass of the student."""

import torch

from ..adapter import adapter_off
from ..diffusion import alpha_sigma, guided, noised, to_eps
from .data import Batch


class Student(torch.nn.Module):
    """The UNet with its adapter, predicting noise under autocast; DeepSpeed's engine wraps it.

    The autocast stands inside, because the engine switches off one that it is called under.
    """

    def __init__(self, unet, alphas_cumprod: torch.Tensor, prediction_type: str, dtype: torch.dtype):
        super().__init__()
        self.unet, self.prediction_type, self.dtype = unet, prediction_type, dtype
        self.alphas_cumprod = alphas_cumprod

    def forward(self, x_t: torch.Tensor, t: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """eps, [n, c, h, w] fp32, from noisy latents x_t [n, c, h, w], timesteps t [n], text embeddings [n, tokens, width]."""
        with torch.autocast(x_t.device.type, self.dtype, enabled=self.dtype != torch.float32):
            prediction = self.unet(x_t, t, context, return_dict=False)[0]
        alpha, sigma = alpha_sigma(self.alphas_cumprod, t)
        return to_eps(prediction.float(), x_t, alpha, sigma, self.prediction_type)

    def states(self, batch: Batch) -> torch.Tensor:
        """The noised latents x_t of a batch."""
        return noised(batch.latents, batch.noise, *alpha_sigma(self.alphas_cumprod, batch.t))

    @torch.no_grad()
    def teacher(self, x_t: torch.Tensor, batch: Batch, w: float) -> torch.Tensor:
        """The guided prediction of the base: adapter off, both passes in one batch."""
        with adapter_off(self.unet):
            context = torch.cat([batch.empty, batch.context])
            eps_uncond, eps_cond = self(x_t.repeat(2, 1, 1, 1), batch.t.repeat(2), context).chunk(2)
        return guided(eps_uncond, eps_cond, w)


def guidance_loss(engine, student: Student, batch: Batch, w: float) -> torch.Tensor:
    """Mean squared error between the student's one pass and the guided teacher, in eps.

    engine: the student as the launcher wrapped it. Source: guidance distillation, arXiv 2210.03142, sec. 3.1, with w fixed.
    """
    x_t = student.states(batch)
    target = student.teacher(x_t, batch, w)
    return (engine(x_t, batch.t, batch.context) - target).square().mean()
