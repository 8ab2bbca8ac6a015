"""The student and the teacher: the UNet with its adapter on and off, or, where all of it is trained, beside a frozen copy."""

from collections.abc import Callable

import torch

from ..diffusion import add_noise, alpha_sigma, classifier_free_guidance, to_eps, to_x_0
from ..models.lora import disable_lora, lora_layers
from .batch import Batch


class Student(torch.nn.Module):
    """The UNet that is trained, as DeepSpeed's engine wraps it; predictions are of the base's own type, in fp32.

    The autocast stands inside, because the engine switches off one that it is called under.
    """

    def __init__(
        self,
        unet,
        alphas_cumprod: torch.Tensor,
        prediction_type: str,
        dtype: torch.dtype,
        frozen=None,
        added: Callable[
            [torch.Tensor | None, torch.Tensor], dict | None
        ] = lambda pooled, latents: None,
    ):
        """frozen: the teacher's UNet where the student has no adapter to switch off; it is not part of this module.
        added: what the UNet takes besides the context, from the pooled text: the base's `added`."""
        super().__init__()
        self.added_cond_kwargs = added
        self.unet, self.prediction_type, self.dtype = unet, prediction_type, dtype
        self.alphas_cumprod = alphas_cumprod
        self._frozen, self._adapted = (frozen,), lora_layers(unet)

    def forward(
        self,
        x_t: torch.Tensor,
        t: torch.Tensor,
        context: torch.Tensor,
        pooled: torch.Tensor | None = None,
    ):
        """Prediction [n, c, h, w] fp32 from noisy latents x_t [n, c, h, w], timesteps t [n], context [n, tokens, width] and,
        in a family that has it, pooled text [n, p]."""
        return self._pass(self.unet, x_t, t, context, pooled)

    def _pass(
        self,
        unet,
        x_t: torch.Tensor,
        t: torch.Tensor,
        context: torch.Tensor,
        pooled: torch.Tensor | None,
    ):
        x_t = x_t.contiguous(
            memory_format=torch.channels_last
        )  # so that all convolutions work in the faster layout
        context = context.to(
            self.dtype
        )  # once, for autocast would do it in each layer that reads it
        with torch.autocast(x_t.device.type, self.dtype, enabled=self.dtype != torch.float32):
            return unet(
                x_t,
                t,
                context,
                added_cond_kwargs=self.added_cond_kwargs(pooled, x_t),
                return_dict=False,
            )[0].float()

    def levels(self, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """alpha and sigma at timesteps t [n], [n, 1, 1, 1]."""
        return alpha_sigma(self.alphas_cumprod, t)

    def states(self, batch: Batch) -> torch.Tensor:
        """The noisy latents x_t of a batch: the states that were kept with the teacher's answers, or the data noised."""
        return (
            add_noise(batch.latents, batch.noise, *self.levels(batch.t))
            if batch.x_t is None
            else batch.x_t
        )

    def eps(self, prediction: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """What a prediction says of the noise."""
        return to_eps(prediction, x_t, *self.levels(t), self.prediction_type)

    def x_0(self, prediction: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """What a prediction says of the clean latents."""
        return to_x_0(prediction, x_t, *self.levels(t), self.prediction_type)

    @torch.no_grad()
    def teacher(self, x_t: torch.Tensor, batch: Batch) -> torch.Tensor:
        """The base's guided prediction at batch.w: kept answers, or both passes in one batch with the adapter off."""
        if batch.answers is not None:
            uncond, cond = batch.answers
        else:
            pooled = (
                None if batch.pooled is None else torch.cat([batch.uncond_pooled, batch.pooled])
            )
            rows = (
                x_t.repeat(2, 1, 1, 1),
                batch.t.repeat(2),
                torch.cat([batch.uncond, batch.context]),
                pooled,
            )
            [frozen] = self._frozen
            if frozen is not None:
                uncond, cond = self._pass(frozen, *rows).chunk(2)
            else:
                with disable_lora(self._adapted):
                    uncond, cond = self._pass(self.unet, *rows).chunk(2)
        return classifier_free_guidance(uncond, cond, batch.w.view(-1, 1, 1, 1))
