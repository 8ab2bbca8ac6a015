"""What sampling costs: UNet evaluations, counted; seconds; memory at its peak."""

import re
from contextlib import suppress
from pathlib import Path
from time import perf_counter

import psutil
import torch

CLEAR, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
"""Linux's account of this process' memory. Source: proc(5)."""


def memory_in_use(device: torch.device) -> float:
    """MiB that are taken now: by tensors on the GPU, or by the process."""
    return (
        torch.cuda.memory_allocated()
        if device.type == "cuda"
        else psutil.Process().memory_info().rss
    ) / 2**20


class SamplingProfiler:
    """Counts from when it is made. `count` is a forward hook for UNets; rows: UNet evaluations so far.

    own: MiB that one pipeline takes by itself; what else is held when the meter is made, such as other contenders' models, is
    no cost of what is measured.
    """

    def __init__(self, device: torch.device, own: float):
        self.rows, self._gpu = 0, device.type == "cuda"
        self._others = memory_in_use(device) - own
        if self._gpu:
            torch.cuda.synchronize()  # what was asked for before is not measured
            torch.cuda.reset_peak_memory_stats()
        else:
            with suppress(
                OSError
            ):  # Linux: the high-water mark of this process' memory begins again from here
                CLEAR.write_text("5")
        self._start = perf_counter()

    def count(self, unet: torch.nn.Module, inputs: tuple, output: object):
        self.rows += inputs[0].shape[0]

    def seconds(self) -> float:
        """Since it was made."""
        if self._gpu:
            torch.cuda.synchronize()
        return perf_counter() - self._start

    def memory(self) -> tuple[float, str]:
        """MiB of one pipeline that samples so, and what they are: the most that tensors took on the GPU; or, without one, the
        most that the process held, or what it holds now where the system does not tell."""
        if self._gpu:
            return torch.cuda.max_memory_allocated() / 2**20 - self._others, "GPU peak"
        with suppress(OSError, TypeError):
            peak = int(re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())[1]) / 2**10
            return peak - self._others, "process peak"
        return psutil.Process().memory_info().rss / 2**20 - self._others, "process at the end"
