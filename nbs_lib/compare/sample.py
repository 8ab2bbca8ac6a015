"""Sampling: base and tuned through one stock pipeline, from the same noise, each picture with its cost."""

import json
import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import diffusers
import numpy as np
import psutil
import torch

from ..adapter import WEIGHTS, read_facts
from ..models import Base, BaseError, find_base
from ..run import Run
from ..usage import sampling
from .contenders import contender

ADAPTER = "onepass"
CONDITIONS = ("prompt_embeds", "add_text_embeds", "add_time_ids")
"""What a pipeline of a family gives its UNet, twice as long where it guides."""
CLEAR, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
"""Linux's account of this process' memory. Source: proc(5)."""


@dataclass(frozen=True)
class Samples:
    """Pictures of one contender, and what one of them cost.

    images: uint8 [n, h, w, 3]; latents: fp32 on the CPU [n, c, h/8, w/8], as the last step left them.
    nfe: UNet evaluations for one image, counted. seconds: wall clock for one picture, its prompt's encoding and the
    decoding included. memory_mib: the most that tensors took on the GPU meanwhile, or, without one, the most that the process
    held (what it held at the end, where the system does not tell); memory_kind says which.
    """

    images: np.ndarray
    latents: torch.Tensor
    nfe: float
    seconds: float
    memory_mib: float
    memory_kind: str


class Sampler:
    """A stock pipeline with the adapter loaded the stock way, on the GPU if there is one."""

    def __init__(self, base: Base, learned: Path, batch_size: int = 20, resolution: int | None = None, tuned_steps: int = 0):
        """learned: folder of an adapter or of a whole model; batch_size: pictures at once; resolution: pixels a side of a
        picture, None for what the base was made for; tuned_steps: of `tuned`, 0 for what it was trained for."""
        facts = read_facts(learned)
        self.base, self.w_train, self.batch_size, self.resolution = base, facts["w_train"], batch_size, resolution
        self.objective, self.whole = facts.get("objective", "guidance"), not (learned / WEIGHTS).exists()
        self.sampling = sampling(facts)
        self.negative = facts.get("negative", "")  # the prompt that the teacher guided away from
        self.tuned_steps = tuned_steps or self.sampling["steps"]
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.pipe = base.pipeline().to(self.device)
        self._scheduler = base.scheduler(getattr(diffusers, self.sampling["scheduler"]))
        self._unet = self._base_weights = None
        if not self.whole:
            self.pipe.load_lora_weights(str(learned), weight_name=WEIGHTS, adapter_name=ADAPTER)
            self.pipe.disable_lora()
            changed = [module.base_layer for module in self.pipe.unet.modules() if hasattr(module, "base_layer")]
            self._base_weights = [(layer.weight, layer.weight.detach().clone()) for layer in changed]
        else:
            self._unet = find_base(str(learned)).unet().to(self.device)
            self._unet.register_forward_hook(self._count)
        self._rows = 0
        self.pipe.unet.register_forward_hook(self._count)
        self._warm = False

    def sample(
        self,
        name: str,
        prompts: list[str],
        seeds: list[int],
        steps: int,
        adapter_scale: float = 1.0,
        guidance: float | None = None,
    ) -> Samples:
        """A picture for each prompt, from the noise of the seed at the same place; guidance is away from the teacher's own
        negative prompt.

        name: of a contender. adapter_scale: for what was trained. guidance: another scale than the contender's own: for
        `guided`, and for `tuned`, with a warning, since what was trained holds its guidance already.
        Errors: ValueError for an unknown contender, or where prompts and seeds are not equally many.
        """
        who = contender(name)
        if len(prompts) != len(seeds) or not prompts:
            raise ValueError(f"{len(prompts)} prompts and {len(seeds)} seeds; give one seed for each prompt, and one or more")
        if who.tuned and self.whole and adapter_scale != 1:
            raise ValueError(f"adapter_scale: given {adapter_scale:g}; allowed is 1, for all weights were trained")
        if not who.tuned:
            w = self.w_train if guidance is None else guidance
            return self._measured(prompts, seeds, steps, w if who.guided else 1.0, who.guided)
        own = self.sampling["guidance_scale"] if who.scale is None else who.scale
        if guidance not in (None, own):
            warnings.warn(
                f"guidance_scale: given {guidance:g}; this adapter was trained for {own:g}, and is guided twice", stacklevel=2
            )
        with self._adapter_fused(adapter_scale) if self._unet is None else self._model_swapped():
            steps, scale = self.tuned_steps or steps, own if guidance is None else guidance
            return self._measured(prompts, seeds, steps, scale, 1.0 if who.guided is None else who.guided)

    def _measured(self, prompts: list[str], seeds: list[int], steps: int, scale: float, guided: float) -> Samples:
        if not self._warm:
            self._draw(prompts[:1], seeds[:1], 1, scale, 1.0)
            self._warm = True
        self._reset_peak()
        self._rows, start = 0, perf_counter()
        parts = [slice(first, first + self.batch_size) for first in range(0, len(prompts), self.batch_size)]
        drawn = [self._draw(prompts[part], seeds[part], steps, scale, guided) for part in parts]
        seconds = perf_counter() - start  # the pictures are on the CPU by now, so a GPU's work is in it
        images, latents = (np.concatenate([each[0] for each in drawn]), torch.cat([each[1] for each in drawn]))
        n = len(prompts)
        return Samples(images, latents, self._rows / n, seconds / n, *self._memory())

    @torch.no_grad()
    def _draw(
        self, prompts: list[str], seeds: list[int], steps: int, scale: float, guided: float
    ) -> tuple[np.ndarray, torch.Tensor]:
        """One batch: pictures and their last latents. Noise comes from the CPU, so it is the same on every machine.

        guided: the share of the steps, from the first one on, that have guidance.
        """
        last, until = {}, math.floor(guided * steps + 0.5)
        scale = scale if until else 1.0
        texts = [name for name in CONDITIONS if name in self.pipe._callback_tensor_inputs]

        def keep(pipe, step: int, t: torch.Tensor, given: dict[str, torch.Tensor]) -> dict:
            last["latents"] = given["latents"]
            if step + 1 != until or not pipe.do_classifier_free_guidance:
                return {}
            # diffusers' own SDCFGCutoffCallback keeps the last row of a batch alone
            pipe._guidance_scale = 1.0
            return {name: given[name].chunk(2)[1] for name in texts}

        pictures = self.pipe(
            prompts,
            negative_prompt=[self.negative] * len(prompts) if self.negative and scale > 1 else None,
            height=self.resolution,
            width=self.resolution,
            num_inference_steps=steps,
            guidance_scale=scale,
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
            output_type="np",
            callback_on_step_end=keep,
            callback_on_step_end_tensor_inputs=["latents", *texts],
        ).images
        return (pictures * 255).round().astype(np.uint8), last["latents"].float().cpu()

    @contextmanager
    def _adapter_fused(self, scale: float) -> Iterator[None]:
        """The adapter added into the weights, so that a tuned pass costs a plain one; afterwards the base, bit for bit.

        The strength is set with `set_adapters`: `fuse_lora(lora_scale=…)` multiplies into a layer and stays there.
        """
        base = self.pipe.scheduler
        try:
            self.pipe.scheduler = self._scheduler
            self.pipe.enable_lora()
            self.pipe.set_adapters(ADAPTER, scale)
            self.pipe.fuse_lora(components=["unet"])
            yield
        finally:
            self.pipe.unfuse_lora(components=["unet"])
            for weight, original in self._base_weights:  # unfusing subtracts, which rounds
                weight.data.copy_(original)
            self.pipe.disable_lora()
            self.pipe.scheduler = base

    @contextmanager
    def _model_swapped(self) -> Iterator[None]:
        """The trained UNet in the place of the base's."""
        base = self.pipe.unet, self.pipe.scheduler
        self.pipe.unet, self.pipe.scheduler = self._unet, self._scheduler
        try:
            yield
        finally:
            self.pipe.unet, self.pipe.scheduler = base

    def _count(self, unet, inputs: tuple, output):
        self._rows += inputs[0].shape[0]

    def _reset_peak(self):
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        else:
            with suppress(OSError):  # Linux: the high-water mark of this process' memory begins again from here
                CLEAR.write_text("5")

    def _memory(self) -> tuple[float, str]:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated() / 2**20, "GPU peak"
        with suppress(OSError, TypeError):
            return int(re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())[1]) / 2**10, "process peak"
        return psutil.Process().memory_info().rss / 2**20, "process at the end"


def load_sampler(run: Run, batch_size: int = 20, tuned_steps: int = 0) -> Sampler:
    """The sampler of a run: the base that its cache names, and what was trained.

    Errors: FileNotFoundError without a cache or adapter; BaseError where the base is no longer the one trained on.
    """
    path = run.cache / "cache.json"
    if not path.is_file():
        raise FileNotFoundError(f"{run.folder} has no cache; run notebooks/1_prepare.ipynb with this run first")
    meta = json.loads(path.read_text())
    full = run.stage_record("train").get("parameters", {}).get("method") == "full"
    learned = run.model if full else run.adapter
    facts, base = read_facts(learned), find_base(meta["base"])
    if base.hash != facts["base_hash"]:
        raise BaseError(
            f"base {base.name!r} has hash {base.hash:.16}; {learned} was trained on one with hash "
            f"{facts['base_hash']:.16}. Give the run that base again, or train on this one"
        )
    return Sampler(base, learned, batch_size, meta["resolution"], tuned_steps)
