"""The parts of a training, built in each process: what is frozen, trained, and steps it."""

import copy
import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from mmap import PAGESIZE
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from torch import Tensor
from torch.nn import Parameter

from ..config import Train
from ..models import BaseError, StableDiffusion, find_base
from ..models.lora import add_lora, lora_layers
from ..run.run import Run
from .accelerator import clip_at_step, wrap_for_training
from .dataset import Examples
from .student import Student
from .zero import gathered, partitioned

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Source: madvise(2).
MADV_PAGEOUT = 21


@dataclass
class TrainingState:
    """The parts of a training.

    engine, optimizer: the student and its optimizer as DeepSpeed wraps them.
    parameters: the trained ones.
    ema: their exponential moving average, or None.
    """

    base: StableDiffusion
    examples: Examples
    student: Student
    engine: Any
    optimizer: Any
    parameters: list[Parameter]
    ema: EMAModel | None

    def update_ema(self):
        """Add a step to the moving average. Every process must call this."""
        if self.ema:
            with gathered(self.parameters):
                self.ema.step(self.parameters)

    def apply_ema(self):
        """Replace the weights by their moving average. Every process must call this."""
        if self.ema:
            with gathered(self.parameters, modified=True):
                self.ema.copy_to(self.parameters)

    @contextmanager
    def ema_weights(self) -> Iterator[None]:
        """Replace the weights by their moving average for a while. Every process must enter it."""
        if not self.ema:
            yield
            return
        with gathered(self.parameters, modified=True):
            self.ema.store(self.parameters)
            self.ema.copy_to(self.parameters)
        yield
        with gathered(self.parameters, modified=True):
            self.ema.restore(self.parameters)


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
    unet, teacher_unet, parameters = trainable(base, config)
    alphas_cumprod = base.scheduler().alphas_cumprod.to(accelerator.device)
    unet.to(accelerator.device)
    if teacher_unet is not None:
        teacher_unet.to(accelerator.device, memory_format=torch.channels_last)
    student = Student(
        unet,
        alphas_cumprod,
        base.prediction_type,
        DTYPES[config.mixed_precision],
        teacher_unet,
        base.added_cond_kwargs,
    )
    optimizer = new_optimizer(parameters, config)
    # at the other stages, and with fp16's loss scale, the engine itself has to clip
    if config.deepspeed and not config.zero_stage and config.mixed_precision != "fp16":
        clip_at_step(optimizer, parameters, config.max_grad_norm)
    choose_attention(unet, student.dtype, unet.device.type)
    engine, optimizer = wrap_for_training(accelerator, student, optimizer)
    if not partitioned(parameters):
        # not earlier: DeepSpeed cannot broadcast weights of that layout
        set_memory_format(unet)
    ema = None
    if config.ema_decay:
        with gathered(parameters):
            ema = EMAModel(parameters, decay=config.ema_decay, use_ema_warmup=True)
    return TrainingState(base, examples, student, engine, optimizer, parameters, ema)


def allow_tf32(allowed: bool):
    """Allow or forbid fp32 products and convolutions on a GPU to round to TF32."""
    # both, because torch's own default allows it in convolutions
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def trainable(
    base: StableDiffusion, config: Train
) -> tuple[UNet2DConditionModel, UNet2DConditionModel | None, list[Parameter]]:
    """Return the UNet, a frozen copy that teaches if it has no adapter, and the trained parameters.

    The parameters are in fp32.
    """
    dtype = DTYPES[config.mixed_precision]
    teacher_unet = None
    if config.method == "full":
        unet = base.unet()
        if config.objective != "finetune" and config.teacher == "live":
            teacher_unet = copy.deepcopy(unet).to(dtype)
        unet.requires_grad_(True)
        parameters = list(unet.parameters())
    else:
        unet = base.unet(dtype)
        parameters = add_lora(
            unet,
            rank=config.rank,
            alpha=config.alpha,
            seed=config.seed,
            targets=config.target_modules,
            method=config.method,
            dropout=config.lora_dropout,
        )
        # DoRA and dropout compute with the inputs themselves, in fp32
        if config.method != "dora" and not config.lora_dropout:
            leave_inputs_to_autocast(unet)
    if config.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    return unet.train(), teacher_unet, parameters


def leave_inputs_to_autocast(unet: UNet2DConditionModel):
    """Switch off peft's cast of a LoRA's inputs."""
    # peft casts them to fp32, as its weights are, and autocast casts them back: each layer would
    # cast all its activations twice for the same numbers
    for layer in lora_layers(unet):
        layer.cast_input_dtype_enabled = False


def choose_attention(unet: UNet2DConditionModel, dtype: torch.dtype, device: str):
    """Use plain products for attention on a CPU in bf16."""
    # forward and backward of the embedded UNet took 0.8 of the time with torch's own attention
    if device == "cpu" and dtype == torch.bfloat16:
        unet.set_attn_processor(AttnProcessor())


def set_memory_format(unet: UNet2DConditionModel):
    """Lay out the frozen convolutions as channels_last, which makes passes faster."""
    for module in unet.modules():
        # only the frozen ones: DeepSpeed cannot flatten channels_last gradients
        if isinstance(module, torch.nn.Conv2d) and not module.weight.requires_grad:
            before = module.weight.data
            module.to(memory_format=torch.channels_last)
            if before.data_ptr() != module.weight.data_ptr():
                page_out(before)


def page_out(tensor: Tensor):
    """Let the system take back the memory of a tensor that is no longer read.

    Source: madvise(2), MADV_PAGEOUT.
    """
    # a base's weights are a mapped file: all its pages that were read stay while one weight is in
    # use. Nothing of any other memory is lost, because it can be read again.
    if tensor.device.type != "cpu" or sys.platform != "linux":
        return
    # only the pages that belong to it alone
    first = -(-tensor.data_ptr() // PAGESIZE) * PAGESIZE
    end = (tensor.data_ptr() + tensor.nbytes) // PAGESIZE * PAGESIZE
    if first < end:
        length = ctypes.c_size_t(end - first)
        ctypes.CDLL(None).madvise(ctypes.c_void_p(first), length, MADV_PAGEOUT)


def new_optimizer(parameters: list[Parameter], config: Train) -> torch.optim.Optimizer:
    """Return AdamW or Prodigy over the parameters."""
    options = {
        "lr": config.learning_rate,
        "betas": (config.adam_beta1, config.adam_beta2),
        "eps": config.adam_epsilon,
        "weight_decay": config.adam_weight_decay,
    }
    if config.optimizer == "prodigy":
        # an extra, which may not be installed
        from prodigyopt import Prodigy

        return Prodigy(parameters, **options, safeguard_warmup=True)
    return torch.optim.AdamW(parameters, **options)


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
