"""The parts of a training, built in each process: its networks, examples and optimizer."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from torch.nn import Parameter

from ..config import Train
from ..models import BaseError, StableDiffusion, find_base
from ..run.run import Run
from .accelerator import clip_at_step, wrap_for_training
from .compilation import compile_denoiser
from .data.dataset import Examples
from .data.prefetch import BatchLoader
from .networks import DTYPES, Networks, build_networks, choose_attention, set_memory_format
from .student import Student
from .zero import gathered, partitioned

# Weights from which the means of a tensor are kept in eight bits: below, scales and tables weigh
# more than they save. bitsandbytes' own default.
MIN_8BIT_SIZE = 4096


@dataclass
class TrainingState:
    """The parts of a training.

    batches: those of the examples, on the device.
    engine, optimizer: the student and its optimizer as DeepSpeed wraps them.
    parameters: the trained ones, those of a fake score among them.
    learned: those that are saved.
    ema: the exponential moving average of those that are saved, or None.
    """

    base: StableDiffusion
    examples: Examples
    batches: BatchLoader
    student: Student
    engine: Any
    optimizer: Any
    parameters: list[Parameter]
    learned: list[Parameter]
    ema: EMAModel | None

    def update_ema(self):
        """Add a step to the moving average. Every process must call this."""
        if self.ema:
            with gathered(self.learned):
                self.ema.step(self.learned)

    def apply_ema(self):
        """Replace the weights by their moving average. Every process must call this."""
        if self.ema:
            with gathered(self.learned, modified=True):
                self.ema.copy_to(self.learned)

    @contextmanager
    def ema_weights(self) -> Iterator[None]:
        """Replace the weights by their moving average for a while. Every process must enter it."""
        if not self.ema:
            yield
            return
        with gathered(self.learned, modified=True):
            self.ema.store(self.learned)
            self.ema.copy_to(self.learned)
        yield
        with gathered(self.learned, modified=True):
            self.ema.restore(self.learned)


def build_training_state(config: Train, run: Run, accelerator) -> TrainingState:
    """Return the parts of a training before its first step.

    Errors: BaseError if the base is not the one that the cache was made with.
    """
    # dropout is the only draw without its own generator
    torch.manual_seed(config.seed + accelerator.process_index)
    allow_tf32(config.allow_tf32)
    examples = Examples(run.cache, config)
    base = find_base(examples.meta["base"], examples.meta.get("revision", ""))
    if base.hash != examples.meta["base_hash"]:
        raise BaseError(
            f"base {base.name!r} is not the one that the cache was made with; "
            "run notebooks/1_prepare.ipynb again"
        )
    networks = build_networks(base, config)
    parameters = networks.parameters
    student = build_student(base, networks, config, accelerator.device)
    optimizer = new_optimizer(networks, config)
    # at the other stages, and with a loss scale of its own, the engine itself has to clip
    if config.deepspeed and not config.zero_stage and not config.engine_scales_loss:
        clip_at_step(optimizer, parameters, config.max_grad_norm)
    engine, optimizer = wrap_for_training(accelerator, student, optimizer)
    if not partitioned(parameters):
        # not earlier: DeepSpeed cannot broadcast weights of that layout
        set_memory_format(student.denoiser)
    compile_denoiser(student.denoiser, config)
    student.compiled = config.compile != "off"
    ema = None
    if config.ema_decay:
        with gathered(networks.learned):
            ema = EMAModel(networks.learned, decay=config.ema_decay, use_ema_warmup=True)
    batches = BatchLoader(examples, accelerator, config.gradient_accumulation_steps)
    return TrainingState(
        base, examples, batches, student, engine, optimizer, parameters, networks.learned, ema
    )


def build_student(
    base: StableDiffusion, networks: Networks, config: Train, device: torch.device
) -> Student:
    """Return the networks on a device, as a student with its teacher."""
    networks.denoiser.to(device)
    if networks.teacher_denoiser is not None:
        networks.teacher_denoiser.to(device, memory_format=torch.channels_last)
    dtype = DTYPES[config.mixed_precision]
    choose_attention(networks.denoiser, dtype, device.type)
    schedule = base.noise_schedule().to(device)
    return Student(networks.denoiser, schedule, base.predict, dtype, networks.teacher_denoiser)


def allow_tf32(allowed: bool):
    """Allow or forbid fp32 products and convolutions on a GPU to round to TF32."""
    # both, because torch's own default allows it in convolutions
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def new_optimizer(networks: Networks, config: Train) -> torch.optim.Optimizer:
    """Return the optimizer of the parameters, those of a fake score in a group of their own.

    `lr_scale` of a group is its learning rate as a multiple of the others'.
    Source: AdamW in eight bits, with a scale for each 256 numbers, arXiv 2110.02861, sec. 2.
    """
    groups = [{"params": networks.learned, "lr_scale": 1.0}]
    if networks.fake_score:
        groups.append({"params": networks.fake_score, "lr_scale": config.fake_score_lr_scale})
    options = {
        "lr": config.learning_rate,
        "betas": (config.adam_beta1, config.adam_beta2),
        "eps": config.adam_epsilon,
        "weight_decay": config.adam_weight_decay,
    }
    # these two are extras, which may not be installed
    if config.optimizer == "prodigy":
        from prodigyopt import Prodigy

        return Prodigy(groups, **options, safeguard_warmup=True)
    if config.optimizer == "adamw_8bit":
        # not before the launch: the import asks CUDA
        from bitsandbytes.optim import AdamW8bit

        return AdamW8bit(groups, **options, min_8bit_size=MIN_8BIT_SIZE)
    # on a GPU one kernel for all weights; DeepSpeed's offloaded optimizer steps on the CPU
    fused = networks.learned[0].is_cuda and not config.offload
    return torch.optim.AdamW(groups, **options, fused=fused or None)


def learning_rate(config: Train, step: int) -> float:
    """Return the learning rate of a step, from diffusers' schedules as pure functions of it."""
    # a pure function, so that a resumed training needs no state of a schedule
    warmup = config.lr_warmup_steps
    name = "constant_with_warmup" if config.lr_scheduler == "constant" else config.lr_scheduler
    schedule = get_scheduler(
        name,
        torch.optim.SGD([torch.zeros(1)], config.learning_rate),
        num_warmup_steps=warmup,
        # a schedule needs a step after its warmup
        num_training_steps=max(config.steps, warmup + 1),
        num_cycles=config.lr_num_cycles,
        power=config.lr_power,
    )
    [factor] = schedule.lr_lambdas
    # counted from one in the warmup: a first step at a rate of 0 would be none
    return config.learning_rate * factor(step + 1 if step < warmup else step)
