"""The memory that a training needs: planned by parts before it starts, measured after it.

The plan is for one process at its peak. A step and the work at the end do not happen together, so
the larger one counts. Forked processes share the pages of the libraries.
"""

import resource
from dataclasses import replace
from pathlib import Path

import torch

from ...config import Train
from ...launch.errors import LaunchError
from ...launch.preflight import process_count
from ...run.memory import MIB, PEAK, MemoryPlan, available_bytes, free_gpu_bytes, gpu_handles
from ..zero import BUCKET_SIZE, MAX_LIVE_WEIGHTS
from .dry_run import DryRunSizes, dry_run
from .savings import memory_savers

FP32 = 4  # bytes
BF16 = 2  # bytes
# The next four are measured on a CPU, see `make bench-machines`.
# Bytes of DeepSpeed's engine, or of a plain one, and of its connections before the first step.
ENGINE = {True: 45 * MIB, False: 10 * MIB}
# Bytes in which a CPU's kernels work.
KERNEL_BUFFERS = 60 * MIB
# Share of freed memory that the C library's allocator keeps.
RETAINED = 0.85
# Bytes that ZeRO 3 takes besides.
PARTITIONING = 75 * MIB
# Numbers that an optimizer keeps for each trained weight.
STATES = {"adamw": 2, "adamw_8bit": 2, "prodigy": 4}
# Numbers in a byte each that have one scale in fp32.
BLOCK = 256
# fp32 numbers for each weight of a tensor in which bitsandbytes takes a step on a CPU.
STEP_8BIT = 5
VERIFICATION = "checks at the end"
LOADING = "weights to be packed"
STEPPING = "step of the optimizer"


def plan_memory(config: Train, cache: Path, processes: int) -> MemoryPlan:
    """Return the plan of a training with so many processes on this host.

    cache: of the run. Only a dry run is started, and no device is touched.
    Errors: RuntimeError if the dry run fails.
    """
    gpus = gpu_handles()[:processes] if torch.cuda.device_count() else []
    sizes = dry_run(config, cache, bool(gpus))
    parts, passing = estimate_bytes(config, sizes, processes * config.num_nodes)
    if not gpus:
        parts["allocator"] = KERNEL_BUFFERS + int(RETAINED * max(passing.values()))
        return MemoryPlan(parts, passing, processes, available_bytes(), parts["libraries"])
    if config.deepspeed and config.zero_stage:
        parts["buckets"] = 2 * FP32 * BUCKET_SIZE
    # the room is the GPU's, and these are in the machine's memory
    for name in ("libraries", "engine", "examples", *(["optimizer"] if config.offload else [])):
        del parts[name]
    # the adapter is verified on the CPU, where the weights were packed, too
    del passing[VERIFICATION]
    passing.pop(LOADING, None)
    # a GPU's kernel steps in place
    passing.pop(STEPPING, None)
    return MemoryPlan(parts, passing, processes=1, room=free_gpu_bytes(gpus), shared=0)


def estimate_bytes(
    config: Train, sizes: DryRunSizes, ranks: int
) -> tuple[dict[str, int], dict[str, int]]:
    """Return the bytes of a process by part: those that stay, and those that come and go.

    sizes: of the dry run.
    ranks: processes of all hosts.
    Source: ZeRO, arXiv 1910.02054, sec. 3: stage 1 divides the optimizer among the ranks, stage 2
    the gradients, stage 3 the weights; DeepSpeed keeps fp32 copies of what it divides.
    """
    full = config.method == "full"
    stage = config.zero_stage if config.deepspeed else 0
    trained = FP32 * sizes.trained
    weight_size = FP32 if full or config.mixed_precision == "fp32" else BF16
    optimizer = optimizer_bytes(config.optimizer, sizes, stage)
    partitioning = gathered = reduced = 0
    optimizer_ranks = gradient_ranks = weight_ranks = 1
    if stage >= 1:
        optimizer_ranks = ranks
        optimizer += trained
        reduced = trained
    if stage >= 2:
        gradient_ranks = ranks
    if stage >= 3:
        weight_ranks = ranks
        partitioning = PARTITIONING
        denoiser_bytes = sizes.frozen + (trained if full else 0)
        # twice, with the weights that are on their way
        gathered = 2 * min(MAX_LIVE_WEIGHTS * weight_size, denoiser_bytes)
    parts = {
        "libraries": sizes.resident,
        "engine": ENGINE[config.deepspeed] + partitioning,
        "examples": sizes.examples,
        "base": sizes.frozen // weight_ranks,
        "gathered weights": gathered,
        "trained weights": trained // (weight_ranks if full else 1),
        "gradients": trained // gradient_ranks + reduced,
        "optimizer": optimizer // optimizer_ranks,
        "mean of the weights": FP32 * sizes.learned if config.ema_decay else 0,
    }
    verification = (BF16 if verifies_in_bf16(config) else FP32) * sizes.denoiser
    # the frozen weights are released before
    verification -= 0 if full else sizes.frozen
    passing = {
        "activations": sizes.activations,
        "pictures": sizes.decoding,
        VERIFICATION: max(0, verification),
    }
    if config.base_precision != "as_is":
        # they are packed layer by layer, so what is read is there at first
        passing[LOADING] = max(0, weight_size * sizes.denoiser - sizes.frozen)
    if config.optimizer == "adamw_8bit" and stage:
        passing[STEPPING] = STEP_8BIT * trained // optimizer_ranks
    return parts, passing


def optimizer_bytes(name: str, sizes: DryRunSizes, stage: int) -> int:
    """Return the bytes that the optimizer keeps of all trained weights, in all ranks together."""
    # ZeRO steps a rank's weights as one tensor, which is never small
    small = 0 if stage else sizes.in_small_tensors
    if name == "adamw_8bit":
        large = sizes.trained - small
        return STATES[name] * (FP32 * small + large + FP32 * large // BLOCK)
    return STATES[name] * FP32 * sizes.trained


def verifies_in_bf16(config: Train) -> bool:
    """Return True if the adapter is verified on a base in bf16."""
    # as the training had it, or the verification would set the peak; DoRA reads the weights in fp32
    small = config.mixed_precision == "bf16" or config.base_precision != "as_is"
    return small and config.method not in ("full", "dora")


def check_fits(plan: MemoryPlan, config: Train, cache: Path):
    """Check that a plan fits.

    Errors: LaunchError with the memory that is needed, what is free, and changes that would fit.
    """
    if not plan.fits:
        raise LaunchError(plan.shortage("training", _suggestion(plan, config, cache)))


def _suggestion(plan: MemoryPlan, config: Train, cache: Path) -> str:
    """Return the first changes that make a training fit, each added to those before it."""
    settings = []
    for change in memory_savers(config, plan.processes):
        config = replace(config, **change)
        settings += [f"{name} = {value}" for name, value in change.items()]
        smaller = plan_memory(config, cache, process_count(config))
        if smaller.fits:
            return f"give {', '.join(settings)}, which needs {smaller.needed / MIB:.0f} MiB"
    return (
        "no change of batch_size, mixed_precision, gradient_checkpointing, base_precision or "
        "num_processes makes it fit; take a smaller base"
    )


def describe_peaks(planned_mib: dict[str, float] | None, measured_mib: list[float]) -> str:
    """Return the planned peak of a process and the measured one of each, in words."""
    planned = f"{planned_mib[PEAK]:.0f} MiB planned" if planned_mib else "not planned"
    measured = ", ".join(f"{size:.0f}" for size in measured_mib)
    return f"memory of a process at its peak: {planned}, {measured} measured"


def measured_peak(gpu: bool) -> int:
    """Return the bytes of this process at its peak so far, on its GPU or in memory."""
    if gpu:
        return torch.cuda.max_memory_reserved()
    # in KiB, on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
