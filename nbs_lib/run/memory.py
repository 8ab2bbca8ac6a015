"""The memory that a stage plans with: its parts, and what the machine and its GPUs have free."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pynvml

MIB = 2**20  # bytes
# The folder in which the system says how much memory a container may use.
CGROUP = Path("/sys/fs/cgroup")
PEAK = "a process at its peak"


@dataclass(frozen=True)
class MemoryPlan:
    """The memory of a stage, in bytes.

    parts: of a process, those that stay.
    passing: of a process, those that come and go; the largest counts.
    processes: that share the room.
    room: free memory of this host, or of each GPU.
    shared: that the processes have in common.
    """

    parts: dict[str, int]
    passing: dict[str, int]
    processes: int
    room: int
    shared: int

    @property
    def peak(self) -> int:
        """Return the bytes of one process at its peak."""
        return sum(self.parts.values()) + max(self.passing.values())

    @property
    def needed(self) -> int:
        """Return the bytes that have to fit into the room."""
        # forked processes share these pages, until one of them writes
        return self.shared + self.processes * (self.peak - self.shared)

    @property
    def fits(self) -> bool:
        """Return True if the stage has the memory it needs."""
        return self.needed <= self.room

    @property
    def largest(self) -> str:
        """Return the name of the largest part."""
        sizes = self.parts | self.passing
        return max(sizes, key=sizes.get)

    def shortage(self, stage: str, suggestion: str) -> str:
        """Return the error of a plan that does not fit: what is needed, what is free, what to do.

        stage: such as "training"
        suggestion: changes that would fit, or that there are none
        """
        several = f" in {self.processes} processes" if self.processes > 1 else ""
        return (
            f"memory: this {stage} needs {self.needed / MIB:.0f} MiB{several}, most of it for "
            f"{self.largest!r}, and {self.room / MIB:.0f} MiB are free; {suggestion}"
        )

    def __str__(self) -> str:
        """Return a table in MiB."""
        several = ""
        if self.processes > 1:
            several = f"; {self.processes} processes need {self.needed / MIB:.0f} MiB"
        title = f"memory planned for a process, MiB{several} of {self.room / MIB:.0f} that are free"
        rows = [f"  {name:<22}{size:>10.1f}" for name, size in self.as_mib().items() if size]
        return "\n".join([title, *rows])

    def as_mib(self) -> dict[str, float]:
        """Return the MiB of every part, and of a process at its peak."""
        sizes = self.parts | self.passing | {PEAK: self.peak}
        return {name: round(size / MIB, 1) for name, size in sizes.items()}


def available_bytes() -> int:
    """Return the free memory of this machine, as far as this process may use it."""
    available = psutil.virtual_memory().available
    try:
        limit = (CGROUP / "memory.max").read_text().strip()
        used = (CGROUP / "memory.current").read_text().strip()
        return available if limit == "max" else min(available, int(limit) - int(used))
    except (OSError, ValueError):
        # no container, or one of another kind
        return available


def free_gpu_bytes(gpus: list) -> int:
    """Return the free memory of the fullest of some GPUs. gpus: NVML's handles."""
    return min(pynvml.nvmlDeviceGetMemoryInfo(gpu).free for gpu in gpus)


def gpu_handles() -> list:
    """Return NVML's handles of the GPUs that CUDA may use.

    That is [] without a driver, or if it does not know one of them.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    try:
        pynvml.nvmlInit()
        if visible is None:
            return [_gpu_handle(str(index)) for index in range(pynvml.nvmlDeviceGetCount())]
        # indices or UUIDs, as CUDA takes them
        names = [name.strip() for name in visible.split(",")]
        return [_gpu_handle(name) for name in names if name]
    except pynvml.NVMLError:
        return []


def _gpu_handle(name: str) -> Any:
    """Return the handle of a GPU by its index or its UUID."""
    if name.isdigit():
        return pynvml.nvmlDeviceGetHandleByIndex(int(name))
    return pynvml.nvmlDeviceGetHandleByUUID(name)
