"""Parameters that leave a choice, resolved before any process starts: from the machine, the cache and the process count.

What is resolved decides what is trained, so a checkpoint belongs to the resolved parameters, and the run records them.
"""

import json
import platform
from dataclasses import replace
from math import ceil
from pathlib import Path

import torch

from ...config import Train
from ..dataset import Examples
from ..monitor.hardware import gpu_handles
from .preflight import process_count

BF16_FROM = 2 * 256
"""Latent pixels of a batch from which bf16 is faster than fp32 on a CPU that multiplies bf16 by itself: two examples of the
embedded base. Below that, what bf16 saves in products is less than its casts cost. Measured on an AMD EPYC with AVX-512 BF16,
CPU seconds a step of the embedded base, bf16 over fp32, at batch 1, 2 and 4: 1.14, 0.93 and 0.79 on kept answers, 1.07, 0.97
and 0.78 with a live teacher."""
CHOICES = ("steps", "mixed_precision")


def resolve_choices(config: Train, cache: Path) -> Train:
    """The parameters with the steps that the epochs come to, and with the precision that `auto` means here.

    cache: of the run. Nothing is started, and CUDA is not touched.
    """
    return with_steps(with_precision(config, cache), cache)


def with_steps(config: Train, cache: Path) -> Train:
    """The steps in which as many examples are seen as `epochs` passes have."""
    if not config.epochs:
        return config
    learned = len(Examples(cache, config).own)
    a_step = (
        config.batch_size
        * config.gradient_accumulation_steps
        * process_count(config)
        * config.num_nodes
    )
    return replace(config, steps=config.epochs * ceil(learned / a_step))


def with_precision(config: Train, cache: Path) -> Train:
    """The fastest precision of this machine whose result is as good."""
    if config.mixed_precision != "auto":
        return config
    if torch.cuda.device_count():
        return replace(config, mixed_precision=gpu_precision(config))
    fast = multiplies_bf16() and pixels(config, cache) >= BF16_FROM
    return replace(config, mixed_precision="bf16" if fast else "fp32")


def gpu_precision(config: Train) -> str:
    """bf16 on GPUs that have it, which NVIDIA's do from compute capability 8.0 on; else fp16 where it can be trained in.

    The driver is asked, because a question to CUDA would spoil the fork. One that does not say gets bf16.
    """
    import pynvml

    try:
        if all(pynvml.nvmlDeviceGetCudaComputeCapability(gpu)[0] >= 8 for gpu in gpu_handles()):
            return "bf16"
    except pynvml.NVMLError:
        return "bf16"
    return "fp32" if config.deepspeed and config.zero_stage else "fp16"


def multiplies_bf16() -> bool:
    """Whether this CPU has instructions for products of bf16; torch imitates them on others, which is slower than fp32."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def pixels(config: Train, cache: Path) -> int:
    """Latent pixels of a process' batch, of the smallest of the cache's shapes."""
    shapes = json.loads((cache / "cache.json").read_text("utf-8"))["shapes"]
    return config.batch_size * min(
        int(height) * int(width) for _, height, width in map(str.split, shapes)
    )
