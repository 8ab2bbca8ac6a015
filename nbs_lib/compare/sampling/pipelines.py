"""Pipelines with the denoiser that given sampling settings call for."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property

import diffusers
import torch
from diffusers import DiffusionPipeline

from ...models import StableDiffusion, find_base
from ...models.lora.metadata import LORA_FILE
from ...models.lora.verification import predict_fixed_noise
from ...models.sampling_recipe import spacing_options
from .adapters import AdapterLoader, change_stamp
from .engines import on_engine
from .precision import in_precision, relative_difference
from .settings import SamplingSettings, SettingsResolver

MAX_MODELS = 4  # other pipelines, and denoisers for engines or precisions, in memory at most


class Pipelines:
    """The base's pipeline with what was trained, other pipelines, and denoisers for engines.

    pipe: the base's pipeline
    adapters: the adapters on its denoiser
    """

    def __init__(
        self, resolver: SettingsResolver, device: torch.device, mixed_precision: str = "no"
    ):
        """Load the base's pipeline, and what was trained, onto the device.

        mixed_precision: of the denoisers, see `precision`
        """
        self.mixed_precision = mixed_precision
        self.base = resolver.base
        self.pipe = self.base.pipeline().to(device)
        self.adapters = AdapterLoader(self.pipe, self.base)
        self._device = device
        self._learned = resolver.learned
        self._tuned_denoiser = None
        if resolver.full_model:
            self._tuned_denoiser = find_base(str(resolver.learned)).denoiser().to(device)
        else:
            self.adapters.load(resolver.learned)
        self._pipes = {}
        self._engines = {}
        self._warmed_up = {}

    @contextmanager
    def prepared(self, settings: SamplingSettings) -> Iterator[DiffusionPipeline]:
        """Yield the pipeline that samples so; afterwards its weights are back, bit for bit."""
        base, pipe = self.for_settings(settings)
        part = base.denoiser_part
        denoiser, scheduler = base.denoiser_of(pipe), pipe.scheduler
        # outside the try: an adapter that is refused has changed nothing
        for folder, _ in settings.adapters:
            self.adapters.load(folder)
        fused = nullcontext()
        try:
            scheduler_class = getattr(diffusers, settings.scheduler)
            spacing = spacing_options(settings.timestep_spacing, settings.steps, settings.scheduler)
            pipe.scheduler = base.scheduler(scheduler_class, **spacing)
            # a denoiser in low precision is another one, because the fp32 weights must come back
            if settings.engine != "eager" or self.mixed_precision != "no":
                setattr(pipe, part, self._separate_denoiser(settings))
            elif settings.adapters:
                fused = self.adapters.fused(settings.adapters)
            elif settings.model and pipe is self.pipe:
                setattr(pipe, part, self._tuned_denoiser)
            with fused:
                yield pipe
        finally:
            setattr(pipe, part, denoiser)
            pipe.scheduler = scheduler

    def for_settings(self, settings: SamplingSettings) -> tuple[StableDiffusion, DiffusionPipeline]:
        """Return the base and the pipeline that sample so: our own, or another pipeline's."""
        if settings.model in (None, self._learned):
            return self.base, self.pipe
        base = find_base(str(settings.model))
        key = _denoiser_key(replace(settings, engine="eager"))
        return base, self._get(self._pipes, key, lambda: base.pipeline().to(self._device))

    def warmed_up_sizes(self, settings: SamplingSettings) -> set[tuple]:
        """Return the sizes of batches that the denoiser of these settings was evaluated on."""
        return self._warmed_up.setdefault(self._key(settings), set())

    @cached_property
    def precision_difference(self) -> float | None:
        """The difference of the base's prediction from fp32's, as a share; None in fp32."""
        if self.mixed_precision == "no":
            return None
        denoiser = self.adapters.merged_denoiser(())
        expected = predict_fixed_noise(denoiser, self.base)
        lower = in_precision(denoiser, self.mixed_precision)
        return relative_difference(expected, predict_fixed_noise(lower, self.base))

    def _separate_denoiser(self, settings):
        """Return a denoiser that is not shared, because an engine or a precision changes it."""

        def create():
            base = self.base
            if settings.model:
                base, _ = self.for_settings(settings)
                denoiser = find_base(str(settings.model)).denoiser().to(self._device)
            else:
                denoiser = self.adapters.merged_denoiser(settings.adapters)
            return on_engine(in_precision(denoiser, self.mixed_precision), settings.engine, base)

        return self._get(self._engines, self._key(settings), create)

    def _key(self, settings):
        return _denoiser_key(settings, shared=self.mixed_precision == "no")

    def _get(self, models, key, create):
        """Return `models[key]`, created if missing; the oldest of MAX_MODELS is removed for it."""
        if key not in models:
            # a day of comparisons would fill the memory
            while len(models) >= MAX_MODELS:
                oldest = next(iter(models))
                del models[oldest]
                self._warmed_up.pop(oldest, None)
            models[key] = create()
        return models[key]


def _denoiser_key(settings, shared=True):
    """Return a key that is equal for settings with the same denoiser, in its present state.

    shared: True if adapters are fused into one denoiser
    """
    # one denoiser, whatever adapters are fused into it
    if shared and settings.engine == "eager" and not settings.model:
        return settings.engine, bool(settings.adapters)
    files = [folder / LORA_FILE for folder, _ in settings.adapters]
    if settings.model:
        files = sorted(settings.model.rglob("*.safetensors"))
    # change stamps: a model that was trained again is another one
    return settings.engine, settings.model, settings.adapters, *map(change_stamp, files)
