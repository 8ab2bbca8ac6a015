"""The student and its teacher: one denoiser with its adapter on and off.

If all of it is trained, a frozen copy of it teaches. A second adapter on the same denoiser may
hold the score of what the student generates.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from ..diffusion import add_noise, classifier_free_guidance
from ..models import NoiseSchedule
from ..models.lora.layers import FAKE_SCORE, activate_lora, disable_lora, lora_layers
from .compilation import eager_passes
from .data.batch import Batch
from .lora_cast import CastInput, LossScale, ScaleGradient, cast_lora, has_lora_pass

Predict = Callable[..., Tensor]


class Student(torch.nn.Module):
    """The denoiser that is trained, as DeepSpeed's engine wraps it.

    Its predictions are of the base's own prediction type, in fp32.
    """

    def __init__(
        self,
        denoiser,
        schedule: NoiseSchedule,
        predict: Predict,
        dtype: torch.dtype,
        teacher_denoiser=None,
    ):
        """Wrap a denoiser.

        denoiser: with an adapter, unless all of it is trained.
        schedule: the base's, on the device.
        predict: the base's method that calls a denoiser of its family.
        dtype: of the pass.
        teacher_denoiser: the frozen teacher, if there is no adapter to switch off.
        """
        super().__init__()
        self.denoiser = denoiser
        self.schedule = schedule
        self.predict = predict
        self.dtype = dtype
        # in a tuple, which hides it from torch: its weights are neither trained nor saved
        self._teacher_denoiser = (teacher_denoiser,)
        # True if the denoiser is, see `compilation`; it passes eagerly in eval mode
        self.compiled = False
        self.lora_layers = lora_layers(denoiser)
        self._casts_once = bool(self.lora_layers) and all(map(has_lora_pass, self.lora_layers))
        self.loss_scale = None
        if self._casts_once and dtype == torch.float16:
            self.loss_scale = LossScale(schedule.device)

    def forward(
        self,
        x_t: Tensor,
        t: Tensor,
        context: Tensor,
        pooled: Tensor | None = None,
    ) -> Tensor:
        """Return the prediction [n, c, h, w] fp32.

        x_t: noisy latents [n, c, h, w].
        t: timesteps [n], see `NoiseSchedule`.
        context: text [n, tokens, width].
        pooled: text [n, p], in a family that has it.
        """
        # compiled in fp32 too: gradients that a CUDA graph returns are overwritten by its next run
        if not self._casts_once or (self.dtype == torch.float32 and not self.compiled):
            return self._predict(self.denoiser, x_t, t, context, pooled)
        with cast_lora(self.lora_layers, self.dtype, self.loss_scale) as scale:
            # distribution learns a part of the fake score's text
            if scale is not None and context.requires_grad:
                context = CastInput.apply(scale, context)
            return self._predict(self.denoiser, x_t, t, context, pooled, scale)

    def _predict(self, denoiser, x_t, t, context, pooled, scale=None) -> Tensor:
        # each once, because an autocast would cast them in each layer that reads them
        context = context.to(self.dtype)
        if self._casts_once:
            x_t = x_t.to(self.dtype)
        # all convolutions then work in the faster layout
        x_t = x_t.contiguous(memory_format=torch.channels_last)
        # inside the module, because the engine switches off an autocast around it
        autocast = self.dtype != torch.float32 and not self._casts_once
        eager = eager_passes(self.compiled and not self.training)
        with eager, torch.autocast(x_t.device.type, self.dtype, enabled=autocast):
            prediction = self.predict(denoiser, x_t, self.schedule.times(t), context, pooled)
        if scale is not None:
            return ScaleGradient.apply(scale, prediction)
        # the next run of a CUDA graph overwrites what it has returned
        return prediction.to(torch.float32, copy=self.compiled)

    def fake_score(self) -> AbstractContextManager:
        """Let passes be those of the second adapter for a while, with or without gradients."""
        return activate_lora(self.lora_layers, FAKE_SCORE)

    def steps_aware(self, context: Tensor, steps: int) -> Tensor:
        """Return texts that also name the number of sampling steps, for the fake score alone.

        Samples of few and of many steps have other distributions, and so other scores.
        Source: arXiv 2503.06674, sec. 4.3.
        """
        return context + self.denoiser.fake_score_steps[steps]

    @torch.no_grad()
    def states(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the student's x_t [n, c, h, w] and t [n] at each row's step of its trajectory.

        The sampling is DDIM's without noise (eta 0), which is Euler's in a flow.
        Source: arXiv 2010.02502, eq. 12.
        """
        rollout = batch.rollout
        n = len(rollout.first)
        x_t = batch.noise[rollout.first]
        context = batch.context[rollout.first]
        pooled = None if batch.pooled is None else batch.pooled[rollout.first]
        states = [x_t]
        times = self.schedule.few_step_timesteps(rollout.steps)
        for start, end in zip(times, times[1:], strict=False):
            t = start.expand(n)
            prediction = self(x_t, t, context, pooled)
            x_0 = self.x_0(prediction, x_t, t)
            x_t = add_noise(x_0, self.eps(prediction, x_t, t), *self.levels(end.expand(n)))
            states.append(x_t)
        x_t = torch.stack(states)[rollout.position, rollout.trajectory]
        return x_t, times[rollout.position]

    def levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return alpha and sigma [n, 1, 1, 1] at timesteps t [n]."""
        return self.schedule.levels(t)

    def noisy_latents(self, batch: Batch) -> Tensor:
        """Return x_t of a batch: the cached states of the teacher, or the noised data."""
        if batch.x_t is not None:
            return batch.x_t
        return add_noise(batch.latents, batch.noise, *self.levels(batch.t))

    def eps(self, prediction: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Return the noise that a prediction stands for."""
        return self.schedule.eps(prediction, x_t, t)

    def x_0(self, prediction: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Return the clean latents that a prediction stands for."""
        return self.schedule.x_0(prediction, x_t, t)

    @torch.no_grad()
    def teacher(self, x_t: Tensor, batch: Batch) -> Tensor:
        """Return the base's guided prediction at batch.w, cached or from one pass over 2n rows."""
        uncond, cond = self.teacher_pair(x_t, batch)
        return classifier_free_guidance(uncond, cond, batch.w.view(-1, 1, 1, 1))

    @torch.no_grad()
    def teacher_pair(self, x_t: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the base's predictions without and with the caption, cached or computed."""
        return batch.answers or self._teacher_passes(x_t, batch)

    def _teacher_passes(self, x_t: Tensor, batch: Batch) -> tuple[Tensor, ...]:
        """Return the base's predictions without and with the caption."""
        pooled = None
        if batch.pooled is not None:
            pooled = torch.cat([batch.uncond_pooled, batch.pooled])
        context = torch.cat([batch.uncond, batch.context])
        inputs = (x_t.repeat(2, 1, 1, 1), batch.t.repeat(2), context, pooled)
        return self.base_prediction(*inputs).chunk(2)

    @torch.no_grad()
    def base_prediction(
        self,
        x_t: Tensor,
        t: Tensor,
        context: Tensor,
        pooled: Tensor | None = None,
    ) -> Tensor:
        """Return the prediction of the untrained base; arguments as in `forward`."""
        [teacher_denoiser] = self._teacher_denoiser
        if teacher_denoiser is not None:
            return self._predict(teacher_denoiser, x_t, t, context, pooled)
        with disable_lora(self.lora_layers):
            return self._predict(self.denoiser, x_t, t, context, pooled)
