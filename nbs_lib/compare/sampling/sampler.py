"""Sampling: contenders through stock pipelines, from the same noise, each picture with its cost."""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import DiffusionPipeline

from ...config.contenders import SCHEDULERS
from ...images.convert import unit_to_uint8
from ...models import StableDiffusion, find_base
from ...models.lora import LORA_FILE
from ...run.run import Run
from .adapters import AdapterLoader, change_stamp
from .engines import on_engine
from .profiler import SamplingProfiler, memory_in_use
from .settings import SamplingSettings, SettingsResolver

__all__ = ["SCHEDULERS", "Sampler", "Samples", "load_sampler"]
CONDITIONS = ("prompt_embeds", "add_text_embeds", "add_time_ids")
"""What a pipeline of a family gives its UNet, twice as long where it guides."""
KEPT = 4  # other pipelines, and UNets of their own that engines have, at most
Watch = Callable[[int, int], None]


@dataclass(frozen=True)
class Samples:
    """Pictures of one contender, and what one of them cost.

    images: uint8 [n, h, w, 3]; latents: fp32 on the CPU [n, c, h/8, w/8], as the last step left them.
    nfe: UNet evaluations for one image, counted. seconds: wall clock for one picture, its prompt's encoding and the
    decoding included. memory_mib, memory_kind: see `Meter.memory`.
    """

    images: np.ndarray
    latents: torch.Tensor
    nfe: float
    seconds: float
    memory_mib: float
    memory_kind: str


class Sampler:
    """A stock pipeline with the adapter loaded the stock way, on the GPU if there is one; and what else is compared with it.

    w_train, objective, whole, sampling, tuned_steps: see `Ways`.
    """

    def __init__(
        self, base: StableDiffusion, learned: Path, batch_size: int = 20, resolution: int | None = None, tuned_steps: int = 0,
        scheduler: str = "",
    ):  # fmt: skip
        """learned: folder of an adapter or of a whole model; batch_size: pictures at once; resolution: pixels a side of a
        picture, None for what the base was made for; tuned_steps: of `tuned`, 0 for what it was trained for; scheduler: one
        of SCHEDULERS, "" for each contender's own."""
        self.ways = SettingsResolver(base, learned, tuned_steps, scheduler)
        self.w_train, self.objective, self.whole = (
            self.ways.w_train,
            self.ways.objective,
            self.ways.whole,
        )
        self.sampling, self.tuned_steps = self.ways.sampling, self.ways.tuned_steps
        self.base, self.learned, self.batch_size, self.resolution = (
            base,
            learned,
            batch_size,
            resolution,
        )
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.pipe = base.pipeline().to(self.device)
        self.adapters = AdapterLoader(self.pipe, base)
        self._unet = find_base(str(learned)).unet().to(self.device) if self.whole else None
        if not self.whole:
            self.adapters.load(learned)
        self._own = memory_in_use(self.device)
        self._pipes: dict[tuple, DiffusionPipeline] = {}
        self._engines: dict[tuple, torch.nn.Module] = {}
        self._warm: dict[tuple, set[tuple]] = {}

    def sample(
        self,
        name: str,
        prompts: list[str],
        seeds: list[int],
        steps: int,
        adapter_scale: float = 1.0,
        guidance: float | None = None,
        scheduler: str = "",
        watch: Watch = lambda done, of: None,
    ) -> Samples:
        """A picture for each prompt, from the noise of the seed at the same place; guidance is away from the teacher's own
        negative prompt.

        name: of a contender; what it says itself goes before the arguments. adapter_scale: for what was trained. guidance:
        another scale than the contender's own: for `guided`, and for `tuned`, with a warning, since what was trained holds
        its guidance already. scheduler: one of SCHEDULERS, "" for the sampler's, or the contender's own. watch: is told after
        each step how many are done, of how many; what it raises ends the sampling.
        Errors: ValueError for an unknown contender, scheduler or scale, or where prompts and seeds are not equally many;
        BaseError for an adapter of another base; FileNotFoundError where a contender's folder has nothing to sample.
        """
        if len(prompts) != len(seeds) or not prompts:
            raise ValueError(
                f"{len(prompts)} prompts and {len(seeds)} seeds; give one seed for each prompt, and one or more"
            )
        return self.sample_way(
            self.ways.of(name, steps, adapter_scale, guidance, scheduler), prompts, seeds, watch
        )

    def sample_way(
        self, way: SamplingSettings, prompts: list[str], seeds: list[int], watch: Watch = lambda done, of: None,
        peek: Callable[[int, torch.Tensor], None] = lambda done, latents: None,
    ) -> Samples:  # fmt: skip
        """The same, of a way that is known. peek: is shown the latents after each step, batch by batch."""
        parts = [
            slice(first, first + self.batch_size)
            for first in range(0, len(prompts), self.batch_size)
        ]
        of, drawn = len(parts) * way.steps, []
        with self._ready(way) as pipe:
            for part in parts:
                self._warm_up(
                    pipe, way, prompts[part], seeds[part], lambda done, latents: watch(0, of)
                )
            meter = SamplingProfiler(self.device, self._own)
            hook = pipe.unet.register_forward_hook(meter.count)
            try:
                for number, part in enumerate(parts):

                    def after(done: int, latents: torch.Tensor, before: int = number * way.steps):
                        peek(done, latents)
                        watch(before + done, of)

                    drawn.append(
                        self._draw(pipe, way, prompts[part], seeds[part], way.steps, after)
                    )
            finally:
                hook.remove()
            seconds = (
                meter.seconds()
            )  # the pictures are on the CPU by now, so a GPU's work is in it
        images, latents = (
            np.concatenate([each[0] for each in drawn]),
            torch.cat([each[1] for each in drawn]),
        )
        return Samples(
            images, latents, meter.rows / len(prompts), seconds / len(prompts), *meter.memory()
        )

    def _warm_up(
        self, pipe: DiffusionPipeline, way: SamplingSettings, prompts: list[str], seeds: list[int],
        after: Callable[[int, torch.Tensor], None],
    ):  # fmt: skip
        """Draw a step once for each UNet and each size of its batches: a first pass is slower, and is no cost of a picture.

        Two steps where guidance ends on the way, because the batches after its end are of half the size.
        """
        ends = 0 < way.guided < 1
        warm, size = self._warm.setdefault(self._key(way), set()), (len(prompts), way.w > 1, ends)
        if size not in warm:
            self._draw(
                pipe, replace(way, guided=0.5) if ends else way, prompts, seeds, 1 + ends, after
            )
            warm.add(size)

    @torch.no_grad()
    def _draw(
        self, pipe: DiffusionPipeline, way: SamplingSettings, prompts: list[str], seeds: list[int], steps: int,
        after: Callable[[int, torch.Tensor], None] = lambda done, latents: None,
    ) -> tuple[np.ndarray, torch.Tensor]:  # fmt: skip
        """One batch: pictures and their last latents. Noise comes from the CPU, so it is the same on every machine."""
        last, until = {}, math.floor(way.guided * steps + 0.5)
        scale = way.w if until else 1.0
        texts = [name for name in CONDITIONS if name in pipe._callback_tensor_inputs]

        def keep(pipe, step: int, t: torch.Tensor, given: dict[str, torch.Tensor]) -> dict:
            last["latents"] = given["latents"]
            after(step + 1, given["latents"])
            if step + 1 != until or not pipe.do_classifier_free_guidance:
                return {}
            # diffusers' own SDCFGCutoffCallback keeps the last row of a batch alone
            pipe._guidance_scale = 1.0
            return {name: given[name].chunk(2)[1] for name in texts}

        pictures = pipe(
            prompts,
            negative_prompt=[way.negative] * len(prompts) if way.negative and scale > 1 else None,
            height=self.resolution,
            width=self.resolution,
            num_inference_steps=steps,
            guidance_scale=scale,
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
            output_type="np",
            callback_on_step_end=keep,
            callback_on_step_end_tensor_inputs=["latents", *texts],
        ).images
        return unit_to_uint8(pictures), last["latents"].float().cpu()

    @contextmanager
    def _ready(self, way: SamplingSettings) -> Iterator[DiffusionPipeline]:
        """The pipeline that samples so, for a while; afterwards all is as it was, bit for bit."""
        base, pipe = self.pipe_of(way)
        was = pipe.unet, pipe.scheduler
        for folder, _ in way.adapters:
            self.adapters.load(folder)
        try:
            pipe.scheduler = base.scheduler(getattr(diffusers, way.scheduler))
            if way.engine != "eager":
                pipe.unet = self._on_engine(way, base)
            elif way.model and pipe is self.pipe:
                pipe.unet = self._unet
            with (
                self.adapters.fused(way.adapters)
                if way.adapters and way.engine == "eager"
                else nullcontext()
            ):
                yield pipe
        finally:
            pipe.unet, pipe.scheduler = was

    def pipe_of(self, way: SamplingSettings) -> tuple[StableDiffusion, DiffusionPipeline]:
        """The base's pipeline, which what was trained here is put into; another one's own."""
        if way.model in (None, self.learned):
            return self.base, self.pipe
        base = find_base(str(way.model))
        eager = self._key(replace(way, engine="eager"))
        return base, self._kept(self._pipes, eager, lambda: base.pipeline().to(self.device))

    def _on_engine(self, way: SamplingSettings, base: StableDiffusion) -> torch.nn.Module:
        """A UNet of its own, which the engine may change."""

        def make() -> torch.nn.Module:
            unet = (
                find_base(str(way.model)).unet().to(self.device)
                if way.model
                else self.adapters.plain(way.adapters)
            )
            return on_engine(unet, way.engine, base)

        return self._kept(self._engines, self._key(way), make)

    def _kept(self, held: dict[Any, Any], key: Any, make: Callable[[], Any]) -> Any:
        """What is held under a key, made where it is not there; the oldest goes for it, or a long day would fill the memory."""
        if key not in held:
            while len(held) >= KEPT:
                oldest = next(iter(held))
                del held[oldest]
                self._warm.pop(oldest, None)
            held[key] = make()
        return held[key]

    def _key(self, way: SamplingSettings) -> tuple:
        """Ways with the same are evaluated by the same UNet: not by one that was trained anew since."""
        if way.engine == "eager" and not way.model:
            return way.engine, bool(way.adapters)
        files = (
            sorted(way.model.rglob("*.safetensors"))
            if way.model
            else [folder / LORA_FILE for folder, _ in way.adapters]
        )
        return way.engine, way.model, way.adapters, *map(change_stamp, files)


def load_sampler(
    run: Run, batch_size: int = 20, tuned_steps: int = 0, scheduler: str = ""
) -> Sampler:
    """The sampler of a run: the base that its cache names, and what was trained.

    Errors: FileNotFoundError without the run, its cache or adapter; BaseError where the base is no longer the one trained on.
    """
    if not run.folder.is_dir():
        raise FileNotFoundError(
            f"there is no run {run.folder}; check its name, or begin it with notebooks/1_prepare.ipynb"
        )
    path = run.cache / "cache.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{run.folder} has no cache; run notebooks/1_prepare.ipynb with this run first"
        )
    meta = json.loads(path.read_text("utf-8"))
    full = run.stage_record("train").get("parameters", {}).get("method") == "full"
    learned = run.model if full else run.adapter
    base = find_base(meta["base"], meta.get("revision", ""))
    return Sampler(base, learned, batch_size, meta["resolution"], tuned_steps, scheduler)
