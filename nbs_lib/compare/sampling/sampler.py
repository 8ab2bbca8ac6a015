"""The sampler: contenders through stock pipelines, from the same noise, with the cost of each."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers import FlowMatchLCMScheduler, SchedulerMixin

from ...cache.format import META
from ...images.convert import unit_to_uint8
from ...models import StableDiffusion, find_base
from ...models.sampling_recipe import step_options
from ...run.run import Run
from .pipelines import Pipelines
from .preview import watch_predictions
from .profiler import SamplingProfiler, memory_in_use
from .settings import SamplingSettings, SettingsResolver
from .sizes import picture_sizes

# The denoiser inputs of a pipeline that are twice as long while it guides.
CONDITIONS = ("prompt_embeds", "add_text_embeds", "add_time_ids", "pooled_prompt_embeds")
# Pixels of a picture up to which the VAE decodes all pictures of a batch at once.
LARGEST_UNSLICED = 512**2
OnProgress = Callable[[int, int], None]
OnLatents = Callable[[int, torch.Tensor], None]
OnPredicted = Callable[[torch.Tensor], None]


@dataclass(frozen=True)
class Samples:
    """Pictures of one contender, and the cost of one of them.

    memory_mib, memory_kind: see `SamplingProfiler.memory`
    """

    images: np.ndarray  # uint8 [n, h, w, 3]
    latents: torch.Tensor  # after the last step, fp32 on the CPU [n, c, h/8, w/8]
    nfe: float  # denoiser evaluations for one picture, counted
    seconds: float  # wall clock for one picture, with the encoding of its prompt and the decoding
    memory_mib: float
    memory_kind: str


class Sampler:
    """A stock pipeline of the base, and the adapters, pipelines and engines compared with it.

    resolver: the settings of each contender
    pipelines: the pipeline that samples with given settings
    sizes: the sizes of pictures that the base can draw
    """

    def __init__(
        self,
        base: StableDiffusion,
        learned: Path,
        batch_size: int = 20,
        resolution: int | None = None,
        tuned_steps: int = 0,
        scheduler: str = "",
        mixed_precision: str = "no",
    ):
        """Load the pipeline, onto the GPU if there is one, and what was trained.

        batch_size: pictures sampled at once
        resolution: pixels a side of a picture, None for the base's own
        learned, tuned_steps, scheduler: see `SettingsResolver`
        mixed_precision: of the denoisers, no (fp32), bf16 or fp16
        """
        self.resolver = SettingsResolver(base, learned, tuned_steps, scheduler)
        self.base = base
        self.batch_size = batch_size
        self.resolution = resolution
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.pipelines = Pipelines(self.resolver, self.device, mixed_precision)
        pipe = self.pipelines.pipe
        self.sizes = picture_sizes(pipe, base.denoiser_of(pipe), resolution)
        # before other models are loaded, which are no cost of one pipeline
        self._pipeline_mib = memory_in_use(self.device)

    def sample(
        self,
        settings: SamplingSettings,
        prompts: list[str],
        seeds: list[int],
        on_progress: OnProgress = lambda step, n_steps: None,
        on_latents: OnLatents = lambda step, latents: None,
        on_predicted: OnPredicted | None = None,
    ) -> Samples:
        """Return a picture for each prompt, from the noise of the seed at the same index.

        on_progress: called after each step with the steps so far and in all; what it raises ends
            the sampling
        on_latents: called with the latents after each step of a batch
        on_predicted: called with the predicted x_0 after each step of a batch
        Errors: ValueError unless there are prompts and as many seeds.
        """
        if len(prompts) != len(seeds) or not prompts:
            raise ValueError(
                f"{len(prompts)} prompts and {len(seeds)} seeds; give one seed for each prompt, "
                "and one or more"
            )
        batches = self._batches(settings, len(prompts))
        n_steps = len(batches) * settings.steps
        images, latents = [], []

        def on_warm_up(*_):
            # step 0: on_progress can end the sampling during the warm-up too
            on_progress(0, n_steps)

        with self.pipelines.prepared(settings) as pipe:
            # all sizes before the clock starts: the last batch may be smaller
            for batch in batches:
                self._warm_up(pipe, settings, prompts[batch], seeds[batch], on_warm_up)
            if on_predicted:
                # the scheduler is this sampling's own, so that nothing must be undone
                watch_predictions(pipe.scheduler, on_predicted)
            profiler = SamplingProfiler(self.device, self._pipeline_mib)
            base, _ = self.pipelines.for_settings(settings)
            denoiser = base.denoiser_of(pipe)
            hook = denoiser.register_forward_hook(profiler.count)
            try:
                for index, batch in enumerate(batches):

                    def on_step(step, now, first=index * settings.steps):
                        on_latents(step, now)
                        on_progress(first + step, n_steps)

                    pictures, last_latents = self._sample_batch(
                        pipe, settings, prompts[batch], seeds[batch], settings.steps, on_step
                    )
                    images.append(pictures)
                    latents.append(last_latents)
            finally:
                hook.remove()
            # the pictures are on the CPU by now, so a GPU's work is in the time
            seconds = profiler.seconds() / len(prompts)
        nfe = profiler.rows / len(prompts)
        return Samples(np.concatenate(images), torch.cat(latents), nfe, seconds, *profiler.memory())

    def _batches(self, settings, count):
        """Return the slices of so many pictures that are sampled at once."""
        size = self.batch_size
        if settings.size:
            # fewer large ones, because only so many of the trained size are sure to fit
            share = self.sizes.trained**2 / math.prod(settings.size)
            size = max(1, math.floor(size * min(1, share)))
        return [slice(start, start + size) for start in range(0, count, size)]

    def _pixels(self, settings):
        return math.prod(settings.size or (self.resolution or self.sizes.trained,) * 2)

    def _warm_up(self, pipe, settings, prompts, seeds, on_step):
        """Sample a step once for each denoiser and batch size: a first pass is slower."""
        guidance_ends = 0 < settings.guided < 1
        warmed_up = self.pipelines.warmed_up_sizes(settings)
        size = len(prompts), settings.w > 1, guidance_ends, settings.size
        if size in warmed_up:
            return
        steps = 1
        if guidance_ends:
            # a guided step and an unguided one, whose batch has half the size
            settings = replace(settings, guided=0.5)
            steps = 2
        self._sample_batch(pipe, settings, prompts, seeds, steps, on_step)
        warmed_up.add(size)

    @torch.no_grad()
    def _sample_batch(self, pipe, settings, prompts, seeds, steps, on_step):
        """Return the pictures of one batch, and their last latents."""
        # half up: Python's round would take halves to the even number
        guided_steps = math.floor(settings.guided * steps + 0.5)
        w = settings.w if guided_steps else 1.0
        # SD has one of them, SDXL three, SD 3 two
        conditions = [name for name in CONDITIONS if name in pipe._callback_tensor_inputs]
        last_latents = None

        def on_step_end(pipe, step, t, tensors):
            nonlocal last_latents
            last_latents = tensors["latents"]
            on_step(step + 1, last_latents)
            if step + 1 != guided_steps or not pipe.do_classifier_free_guidance:
                return {}
            # not diffusers' SDCFGCutoffCallback: it keeps only the last row of a batch
            pipe._guidance_scale = 1.0
            return {name: tensors[name].chunk(2)[1] for name in conditions}

        # noise from the CPU is the same on every machine
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        seed_steps(pipe.scheduler, generators)
        negative = settings.negative if w > 1 else ""
        width, height = settings.size or (self.resolution, self.resolution)
        # one picture after the other, or the VAE's memory would be the peak of large ones
        pipe.vae.use_slicing = self._pixels(settings) > LARGEST_UNSLICED
        pictures = pipe(
            prompts,
            negative_prompt=[negative] * len(prompts) if negative else None,
            height=height,
            width=width,
            **step_options(settings.scheduler, settings.timestep_spacing, steps),
            guidance_scale=w,
            generator=generators,
            output_type="np",
            callback_on_step_end=on_step_end,
            callback_on_step_end_tensor_inputs=["latents", *conditions],
        ).images
        return unit_to_uint8(pictures), last_latents.float().cpu()


def seed_steps(scheduler: SchedulerMixin, generators: list[torch.Generator]):
    """Let a flow's scheduler draw the noise of its steps from these generators.

    SD 3's pipeline does not hand its own ones on to the scheduler, as the others do.
    """
    if isinstance(scheduler, FlowMatchLCMScheduler):
        scheduler.step = partial(scheduler.step, generator=generators)


def load_sampler(
    run: Run,
    batch_size: int = 20,
    tuned_steps: int = 0,
    scheduler: str = "",
    mixed_precision: str = "no",
) -> Sampler:
    """Return the sampler of a run: the base that its cache names, and what was trained.

    The other parameters are those of `Sampler`.

    Errors: FileNotFoundError without the run, its cache or adapter; BaseError if the base is no
    longer the one trained on.
    """
    if not run.folder.is_dir():
        first = "begin it with notebooks/1_prepare.ipynb"
        raise FileNotFoundError(f"there is no run {run.folder}; check its name, or {first}")
    path = run.cache / META
    if not path.is_file():
        raise FileNotFoundError(
            f"{run.folder} has no cache; run notebooks/1_prepare.ipynb with this run first"
        )
    metadata = json.loads(path.read_text("utf-8"))
    full = run.stage_record("train").get("parameters", {}).get("method") == "full"
    base = find_base(metadata["base"], metadata.get("revision", ""))
    learned = run.model if full else run.adapter
    resolution = metadata["resolution"]
    return Sampler(base, learned, batch_size, resolution, tuned_steps, scheduler, mixed_precision)
