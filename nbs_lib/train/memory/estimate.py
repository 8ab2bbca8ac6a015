"""How much memory a training needs: planned by parts before it begins, measured after it.

The plan is of one process, at its peak. What a step makes and the work at the end do not come together, so the largest of
them counts. Of the ranks that share a machine's memory, forked processes share the libraries' pages too.
"""

import resource
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import torch

from ...config import Train
from ..errors import LaunchError
from ..launch.preflight import process_count
from ..monitor.hardware import gpu_handles
from ..zero import BUCKET, LIVE
from .dry_run import DryRunSizes, dry_run

FP32, BF16, MIB = 4, 2, 2**20
ENGINE = {True: 45 * MIB, False: 10 * MIB}
"""What a process takes before its first step besides: DeepSpeed's engine, or a plain one, and its way to the others.
Measured on a CPU, as are the next two; see `make bench-machines`."""
BUFFERS, KEPT = 60 * MIB, 0.85
"""On a CPU: what the kernels work in, and what the C library's allocator keeps of what passes, as a share of it."""
PARTITIONING = 75 * MIB
"""What ZeRO 3 takes besides, also measured on a CPU."""
STATES = 2  # of AdamW, for each weight that is trained; Prodigy has twice as many
TAKEN = Path("/sys/fs/cgroup")
"""Where the system says what a container may use."""


@dataclass(frozen=True)
class MemoryPlan:
    """parts: bytes of a process that stay; passing: bytes that come and go, of which the largest counts; room: bytes for all
    processes of this host, or for each on its own GPU; shared: bytes that the processes have in common."""

    parts: dict[str, int]
    passing: dict[str, int]
    processes: int
    room: int
    shared: int

    @property
    def peak(self) -> int:
        """Bytes of one process at most."""
        return sum(self.parts.values()) + max(self.passing.values())

    @property
    def needed(self) -> int:
        """Bytes that have to fit into the room."""
        return self.shared + self.processes * (self.peak - self.shared)

    @property
    def fits(self) -> bool:
        return self.needed <= self.room

    def __str__(self) -> str:
        """A table of MiB."""
        rows = "\n".join(f"  {name:<22}{size:>10.1f}" for name, size in self.told().items() if size)
        several = (
            f"; {self.processes} processes need {self.needed / MIB:.0f} MiB"
            if self.processes > 1
            else ""
        )
        return f"memory planned for a process, MiB{several} of {self.room / MIB:.0f} that are free\n{rows}"

    def told(self) -> dict[str, float]:
        """MiB of every part, and of a process at its peak."""
        parts = self.parts | self.passing | {"a process at its peak": self.peak}
        return {name: round(size / MIB, 1) for name, size in parts.items()}


def plan_memory(config: Train, cache: Path, processes: int) -> MemoryPlan:
    """What one of `processes` on this host will need. cache: of the run. Nothing is started and no device is touched, but
    for a process aside that ends. Errors: RuntimeError where the rehearsal fails."""
    gpus = gpu_handles()[:processes] if torch.cuda.device_count() else []
    rehearsal = dry_run(config, cache, bool(gpus))
    parts, passing = estimate_bytes(config, rehearsal, processes * config.num_nodes)
    if not gpus:
        parts["allocator"] = BUFFERS + int(KEPT * max(passing.values()))
        return MemoryPlan(parts, passing, processes, available_bytes(), parts["libraries"])
    import pynvml

    if config.deepspeed and config.zero_stage:
        parts["buckets"] = 2 * FP32 * BUCKET
    here = {name: size for name, size in parts.items() if name not in _in_host_memory(config)}
    passing = {name: size for name, size in passing.items() if name != "checks at the end"}
    return MemoryPlan(
        here, passing, 1, min(pynvml.nvmlDeviceGetMemoryInfo(gpu).free for gpu in gpus), 0
    )


def _in_host_memory(config: Train) -> set[str]:
    return {"libraries", "engine", "examples"} | ({"optimizer"} if config.offload else set())


def estimate_bytes(
    config: Train, of: DryRunSizes, ranks: int
) -> tuple[dict[str, int], dict[str, int]]:
    """Bytes of a process by part: those that stay, and those that come and go. ranks: of all hosts.

    Source: ZeRO, arXiv 1910.02054, sec. 3: stage 1 divides the optimizer among the ranks, stage 2 the gradients, stage 3 the
    weights; DeepSpeed keeps fp32 copies of what it divides.
    """
    stage = config.zero_stage if config.deepspeed else 0
    divided = [ranks if stage >= each else 1 for each in (1, 2, 3)]  # optimizer, gradients, weights
    trained = FP32 * of.trained
    full = config.method == "full"
    weight, whole = (
        FP32 if full or config.mixed_precision == "fp32" else BF16,
        of.frozen + (trained if full else 0),
    )
    states = STATES * (2 if config.optimizer == "prodigy" else 1) + (1 if stage else 0)
    parts = {
        "libraries": of.resident,
        "engine": ENGINE[config.deepspeed] + (PARTITIONING if stage == 3 else 0),
        "examples": of.examples,
        "base": of.frozen // divided[2],
        "gathered weights": 2 * min(LIVE * weight, whole)
        if stage == 3
        else 0,  # and those that are on their way
        "trained weights": trained // (divided[2] if full else 1),
        "gradients": trained // divided[1]
        + (trained if config.deepspeed and stage else 0),  # and what is being reduced
        "optimizer": states * trained // divided[0],
        "mean of the weights": trained if config.ema_decay else 0,
    }
    lean = config.mixed_precision == "bf16" and config.method not in (
        "full",
        "dora",
    )  # see `finish.save`
    checks = (BF16 if lean else FP32) * of.whole - (
        0 if full else of.frozen
    )  # which are let go before
    passing = {
        "activations": of.activations,
        "pictures": of.decoding,
        "checks at the end": max(0, checks),
    }
    return parts, passing


def available_bytes() -> int:
    """Bytes that this machine has left, as far as this process may use them."""
    found = [psutil.virtual_memory().available]
    try:
        limit, used = (
            (TAKEN / name).read_text().strip() for name in ("memory.max", "memory.current")
        )
        found += [int(limit) - int(used)] if limit != "max" else []
    except (OSError, ValueError):
        pass  # no container, or one of another kind
    return min(found)


def check_fits(planned: MemoryPlan, config: Train, cache: Path):
    """Errors: LaunchError where the plan does not fit: what is needed, what there is, and what would fit."""
    if planned.fits:
        return
    largest = max(planned.parts | planned.passing, key=(planned.parts | planned.passing).get)
    several = f", {planned.processes} processes" if planned.processes > 1 else ""
    raise LaunchError(
        f"memory: this training needs {planned.needed / MIB:.0f} MiB{several}, most of it for {largest!r}, and "
        f"{planned.room / MIB:.0f} MiB are free; {_what_fits(planned, config, cache)}"
    )


def _what_fits(planned: MemoryPlan, config: Train, cache: Path) -> str:
    """The first change that makes it fit, each added to those before it."""
    changes, given = [], []
    if not config.gradient_checkpointing:
        changes.append({"gradient_checkpointing": True})
    if config.mixed_precision == "fp32":
        changes.append({"mixed_precision": "bf16"})
    if config.batch_size > 1:
        changes.append(
            {
                "batch_size": 1,
                "gradient_accumulation_steps": config.batch_size
                * config.gradient_accumulation_steps,
            }
        )
    if (
        config.deepspeed
        and config.method == "full"
        and config.optimizer == "adamw"
        and config.mixed_precision != "fp16"
    ):
        changes += [{"zero_stage": 3}, {"offload": True}]
    if planned.processes > 1:
        changes.append({"num_processes": 1})
    for change in changes:
        config = replace(config, **change)
        given += [f"{name} = {value}" for name, value in change.items()]
        other = plan_memory(config, cache, process_count(config))
        if other.fits:
            return f"give {', '.join(given)}, which needs {other.needed / MIB:.0f} MiB"
    return "no change of batch_size, mixed_precision, gradient_checkpointing or num_processes makes it fit; take a smaller base"


def describe_peaks(planned_mib: dict[str, float] | None, measured_mib: list[float]) -> str:
    """What was planned of a process at its peak and what was measured of each, in words."""
    planned = (
        f"{planned_mib['a process at its peak']:.0f} MiB planned" if planned_mib else "not planned"
    )
    return f"memory of a process at its peak: {planned}, {', '.join(f'{each:.0f}' for each in measured_mib)} measured"


def measured_peak(gpu: bool) -> int:
    """Bytes of this process at its peak so far: on its GPU, or else in memory."""
    if gpu:
        return torch.cuda.max_memory_reserved()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
