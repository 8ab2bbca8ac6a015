"""The parts of a training, put together in each process: what is frozen, what is trained, and what steps it."""

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

from ..config import Train
from ..models import BaseError, StableDiffusion, find_base
from ..models.lora import add_lora, lora_layers
from ..run.run import Run
from .accelerator import clip_at_step, wrap_for_training
from .dataset import Examples
from .student import Student
from .zero import gathered, partitioned

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class TrainingState:
    """engine: the student as DeepSpeed wraps it; parameters: what is trained; ema: a mean of them over the steps, or None."""

    base: StableDiffusion
    examples: Examples
    student: Student
    engine: Any
    optimizer: Any
    parameters: list[torch.nn.Parameter]
    ema: EMAModel | None

    def follow(self):
        """Let the mean take in a step. Every process must call this."""
        if self.ema:
            with gathered(self.parameters):
                self.ema.step(self.parameters)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The mean in the place of the weights for a while. Every process must enter it."""
        if not self.ema:
            yield
            return
        with gathered(self.parameters, changed=True):
            self.ema.store(self.parameters)
            self.ema.copy_to(self.parameters)
        yield
        with gathered(self.parameters, changed=True):
            self.ema.restore(self.parameters)


def build_training_state(config: Train, run: Run, accelerator) -> TrainingState:
    """Everything for a training, before its first step. Errors: BaseError where the base is not the cache's."""
    torch.manual_seed(
        config.seed + accelerator.process_index
    )  # the dropout's, the one draw without a generator
    set_tf32(config.allow_tf32)
    examples = Examples(run.cache, config)
    base = find_base(examples.meta["base"], examples.meta.get("revision", ""))
    if base.hash != examples.meta["base_hash"]:
        raise BaseError(
            f"base {base.name!r} is not the one that the cache was made with; run notebooks/1_prepare.ipynb again"
        )
    unet, frozen, parameters = trainable(base, config)
    alphas_cumprod = base.scheduler().alphas_cumprod.to(accelerator.device)
    unet.to(accelerator.device)
    if frozen is not None:
        frozen.to(accelerator.device, memory_format=torch.channels_last)
    student = Student(
        unet,
        alphas_cumprod,
        base.prediction_type,
        DTYPES[config.mixed_precision],
        frozen,
        base.added_cond_kwargs,
    )
    optimizer = new_optimizer(parameters, config)
    if config.deepspeed and not config.zero_stage and config.mixed_precision != "fp16":
        clip_at_step(optimizer, parameters, config.max_grad_norm)
    choose_attention(unet, student.dtype, unet.device.type)
    engine, optimizer = wrap_for_training(accelerator, student, optimizer)
    if not partitioned(parameters):
        set_memory_format(unet)
    with gathered(parameters):
        ema = (
            EMAModel(parameters, decay=config.ema_decay, use_ema_warmup=True)
            if config.ema_decay
            else None
        )
    return TrainingState(base, examples, student, engine, optimizer, parameters, ema)


def set_tf32(allowed: bool):
    """Let fp32 products and convolutions on a GPU round to TF32, or not: torch lets convolutions unless it is told."""
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def trainable(
    base: StableDiffusion, config: Train
) -> tuple[UNet2DConditionModel, UNet2DConditionModel | None, list]:
    """The UNet, the frozen copy that teaches where there is no adapter to switch off, and the trained parameters in fp32."""
    dtype = DTYPES[config.mixed_precision]
    if config.method == "full":
        unet = base.unet()
        frozen = (
            None
            if config.objective == "finetune" or config.teacher == "cached"
            else copy.deepcopy(unet).to(dtype)
        )
        unet.requires_grad_(True)
        parameters = list(unet.parameters())
    else:
        unet, frozen = base.unet(dtype), None
        how = (
            config.rank,
            config.alpha,
            config.seed,
            config.target_modules,
            config.method,
            config.lora_dropout,
        )
        parameters = add_lora(unet, *how)
        if (
            config.method != "dora" and not config.lora_dropout
        ):  # which compute with the inputs, in fp32
            spare_casts(unet)
    if config.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    return unet.train(), frozen, parameters


def spare_casts(unet: UNet2DConditionModel):
    """Leave the inputs of a LoRA to autocast. peft casts them to fp32, as its weights are, and autocast casts them back: the
    numbers are the same, and each layer casts all its activations twice for nothing."""
    for layer in lora_layers(unet):
        layer.cast_input_dtype_enabled = False


def choose_attention(unet: UNet2DConditionModel, dtype: torch.dtype, device: str):
    """On a CPU in bf16, attention is a plain product: forward and backward of the embedded UNet took 0.8 of what they take
    with torch's own."""
    if device == "cpu" and dtype == torch.bfloat16:
        unet.set_attn_processor(AttnProcessor())


def set_memory_format(unet: UNet2DConditionModel):
    """Frozen convolutions are channels_last, which makes passes faster; of those that learn, DeepSpeed could not flatten the
    gradients. Not before DeepSpeed has the model: it cannot broadcast weights of that layout."""
    for module in unet.modules():
        if isinstance(module, torch.nn.Conv2d) and not module.weight.requires_grad:
            was = module.weight.data
            module.to(memory_format=torch.channels_last)
            if was.data_ptr() != module.weight.data_ptr():
                page_out(was)


def page_out(tensor: torch.Tensor):
    """Let the system take back the memory of a tensor that nothing reads any more.

    A base's weights are a mapped file, of which all pages that were read stay while one weight of it is in use. Of any other
    memory nothing is lost, for it can be read again. Source: madvise(2), MADV_PAGEOUT.
    """
    if tensor.device.type == "cpu" and sys.platform == "linux":
        first, end = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
        first, end = (
            -(-first // PAGESIZE) * PAGESIZE,
            end // PAGESIZE * PAGESIZE,
        )  # whole pages of its own
        if first < end:
            ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(end - first), 21)


def new_optimizer(parameters: list[torch.nn.Parameter], config: Train) -> torch.optim.Optimizer:
    how = {
        "lr": config.learning_rate,
        "betas": (config.adam_beta1, config.adam_beta2),
        "eps": config.adam_epsilon,
        "weight_decay": config.adam_weight_decay,
    }
    if config.optimizer == "prodigy":
        from prodigyopt import Prodigy

        return Prodigy(parameters, **how, safeguard_warmup=True)
    return torch.optim.AdamW(parameters, **how)


def learning_rate(config: Train, step: int) -> float:
    """The learning rate of a step: diffusers' schedules as pure functions of it, so that a resumed training needs no state."""
    name = "constant_with_warmup" if config.lr_scheduler == "constant" else config.lr_scheduler
    dummy = torch.optim.SGD([torch.zeros(1)], config.learning_rate)
    last = max(config.steps, config.lr_warmup_steps + 1)  # a schedule needs a step after its warmup
    lengths = {"num_warmup_steps": config.lr_warmup_steps, "num_training_steps": last}
    course = get_scheduler(
        name, dummy, **lengths, num_cycles=config.lr_num_cycles, power=config.lr_power
    )
    [factor] = course.lr_lambdas
    # counted from one: the first step is a step, and so is the last
    return config.learning_rate * factor(step + 1 if step < config.lr_warmup_steps else step)
