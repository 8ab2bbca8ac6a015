"""Parameters that leave a choice, resolved before any process starts.

The machine, the cache and the process count decide. The resolved values decide what is trained, so
a checkpoint belongs to them, and the run records them.
"""

import importlib.util
import json
import platform
from dataclasses import asdict, replace
from functools import lru_cache
from math import ceil
from pathlib import Path

import pynvml
import torch

from ..cache.format import META
from ..config import Train
from ..launch.errors import LaunchError
from ..launch.preflight import process_count
from ..run.continuation import changed_parameters
from ..run.run import Run
from .data.dataset import Examples
from .memory.batch_size import largest_batch
from .monitor.hardware import gpu_handles

# Latent pixels of a batch from which bf16 is faster than fp32, on a CPU that multiplies bf16.
# That is two examples of the embedded base; below it, bf16 saves less in products than its casts
# cost. Measured on an AMD EPYC with AVX-512 BF16, CPU seconds a step of the embedded base, bf16
# over fp32, at batch 1, 2 and 4: 1.14, 0.93 and 0.79 on cached answers, 1.07, 0.97 and 0.78 with a
# live teacher.
MIN_BF16_PIXELS = 2 * 256
# The parameters that are resolved.
CHOICES = ("steps", "mixed_precision", "batch_size", "deepspeed")


def resolve_choices(config: Train, cache: Path) -> Train:
    """Return the parameters with the engine, the precision, the batch size and the steps chosen.

    cache: of the run. No training is started, and CUDA is not touched.

    Errors: LaunchError for ZeRO without DeepSpeed, or if the memory for a batch size of 0 cannot
    be planned.
    """
    # first the engine, because the precision depends on it
    config = resolve_precision(resolve_engine(config), cache)
    # the steps of an epoch depend on the batch
    return resolve_steps(resolve_batch_size(config, cache), cache)


def resolve_batch_size(config: Train, cache: Path) -> Train:
    """Return the parameters with the largest batch that the memory plan allows in place of 0."""
    if config.batch_size:
        return config
    record = Run(config.run).stage_record("train")
    before = record.get("resolved", {}).get("batch_size")
    # the free memory is another one at each start, and a training is resumed with its own batch
    ignored = {"deepspeed", "mixed_precision", "steps"}
    changes = changed_parameters(
        record.get("parameters", {}), asdict(config), asdict(config).keys() - ignored
    )
    if before and not changes:
        return replace(config, batch_size=before)
    return replace(config, batch_size=_largest_batch(json.dumps(asdict(config)), cache.resolve()))


# the notebook shows the batch before the training takes it
@lru_cache(maxsize=8)
def _largest_batch(parameters: str, cache: Path) -> int:
    config = Train(**json.loads(parameters))
    try:
        return largest_batch(config, cache, process_count(config))
    except RuntimeError as failure:
        raise LaunchError(f"batch_size: given 0, and {failure}; give a number") from None


def resolve_engine(config: Train) -> Train:
    """Return the parameters without DeepSpeed if it is not installed; plain training does as well.

    Errors: LaunchError if ZeRO was asked for, which only DeepSpeed has.
    """
    # finds the package without importing it
    if not config.deepspeed or importlib.util.find_spec("deepspeed"):
        return config
    if config.zero_stage:
        raise LaunchError(
            f"zero_stage: given {config.zero_stage}, which needs DeepSpeed, and it is not "
            "installed; it comes with `pip install deepspeed`, or give 0"
        )
    return replace(config, deepspeed=False)


def resolve_steps(config: Train, cache: Path) -> Train:
    """Return the parameters with the steps that see as many examples as `epochs` passes."""
    if not config.epochs:
        return config
    # an incomplete last step of an epoch is a step too
    passes = config.gradient_accumulation_steps * process_count(config) * config.num_nodes
    steps_per_epoch = ceil(len(Examples(cache, config).training) / (config.batch_size * passes))
    return replace(config, steps=config.epochs * steps_per_epoch)


def resolve_precision(config: Train, cache: Path) -> Train:
    """Return the parameters with the fastest precision of this machine whose result is as good."""
    if config.mixed_precision != "auto":
        return config
    if torch.cuda.device_count():
        return replace(config, mixed_precision=gpu_precision(config))
    fast = multiplies_bf16() and latent_pixels(config, cache) >= MIN_BF16_PIXELS
    return replace(config, mixed_precision="bf16" if fast else "fp32")


def gpu_precision(config: Train) -> str:
    """Return bf16 for GPUs that have it; otherwise fp16 if the engine can train in it, or fp32."""
    try:
        # the driver, because a question to CUDA would spoil the fork
        capabilities = [pynvml.nvmlDeviceGetCudaComputeCapability(gpu) for gpu in gpu_handles()]
    except pynvml.NVMLError:
        return "bf16"
    # NVIDIA's have bf16 from compute capability 8.0 on
    if all(major >= 8 for major, _ in capabilities):
        return "bf16"
    # without a loss scale in the passes, the engine has one at ZeRO 0 alone
    if config.casts_lora_once or not (config.deepspeed and config.zero_stage):
        return "fp16"
    return "fp32"


def multiplies_bf16() -> bool:
    """Return True if this CPU has instructions for products of bf16."""
    # torch imitates them on others, which is slower than fp32
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def latent_pixels(config: Train, cache: Path) -> int:
    """Return the latent pixels of a process' batch, of the smallest of the cache's shapes.

    A batch size that is still open counts as large.
    """
    shapes = json.loads((cache / META).read_text("utf-8"))["shapes"]
    sizes = []
    for shape in shapes:
        _, height, width = shape.split()
        sizes.append(int(height) * int(width))
    return (config.batch_size or MIN_BF16_PIXELS) * min(sizes)
