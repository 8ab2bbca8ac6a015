"""The cost of sampling: denoiser evaluations, counted; seconds; peak memory."""

import re
from contextlib import suppress
from pathlib import Path
from time import perf_counter

import psutil
import torch

# Linux's account of this process' memory. Source: proc(5).
CLEAR, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def memory_in_use(device: torch.device) -> float:
    """Return the MiB in use now: by tensors on the GPU, or by the process without one."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated() / 2**20
    return psutil.Process().memory_info().rss / 2**20


class SamplingProfiler:
    """A measurement that begins when it is created.

    `count` is a forward hook for denoisers; `rows` are the denoiser evaluations so far.
    """

    def __init__(self, device: torch.device, pipeline_mib: float):
        """Begin to measure.

        pipeline_mib: MiB that one pipeline takes by itself. What the process holds beyond that,
            such as other contenders' models, is no cost of what is measured.
        """
        self.rows = 0
        self._gpu = device.type == "cuda"
        self._other_mib = memory_in_use(device) - pipeline_mib
        if self._gpu:
            torch.cuda.synchronize()  # work that was queued before is not measured
            torch.cuda.reset_peak_memory_stats()
        else:
            # Linux resets the high-water mark of the process; other systems have no such file
            with suppress(OSError):
                CLEAR.write_text("5")
        self._start = perf_counter()

    def count(
        self,
        denoiser: torch.nn.Module,
        inputs: tuple,
        output: tuple,
    ):
        """Count the rows of a batch that a denoiser was evaluated on."""
        # not of the inputs, which some pipelines pass by name
        self.rows += output[0].shape[0]

    def seconds(self) -> float:
        """Return the seconds since the beginning."""
        if self._gpu:
            torch.cuda.synchronize()
        return perf_counter() - self._start

    def memory(self) -> tuple[float, str]:
        """Return the MiB of one pipeline that samples, and the kind of number this is.

        The kinds: the peak of tensors on the GPU; without a GPU the peak of the process, or its
        memory now if the system has no peak.
        """
        if self._gpu:
            return torch.cuda.max_memory_allocated() / 2**20 - self._other_mib, "GPU peak"
        # other systems have no such file, or no such line in it
        with suppress(OSError, TypeError):
            peak_kib = int(re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())[1])
            return peak_kib / 2**10 - self._other_mib, "process peak"
        return psutil.Process().memory_info().rss / 2**20 - self._other_mib, "process at the end"
