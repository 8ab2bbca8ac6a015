"""The use of the machine, of the training's processes and of its GPUs at a moment.

    {"cpu_percent": 97.5,
     "processes": [{"rank": "kernel", "cpu_percent": 0.4, "memory_mib": 610.2},
                   {"rank": 0, "cpu_percent": 98.1, "memory_mib": 1230.7}, …],
     "gpus": [{"percent": 93, "memory_mib": 30211.4, "power_w": 412.6}, …]}

cpu_percent: of the machine, 100 for all of its cores; of a process, 100 for one core.
memory_mib: resident; pages that forked processes share count in each of them.
gpus: those that CUDA may use, in its order, if there is a driver. A number that the driver does not
    give, as for a part of a GPU, is left out.
"""

from contextlib import suppress
from typing import Any

import psutil
import pynvml

from ...run.memory import MIB, gpu_handles


class HardwareSampler:
    """A sampler of this process, the kernel, of the ranks and of the GPUs.

    To be made after the processes were forked: NVML must not be used on both sides of a fork.
    """

    def __init__(self, pids: dict[int, int]):
        """Start the CPU's measurement. pids: of each rank."""
        # the same objects for every sample, because psutil measures the CPU since its last call
        self.processes: dict[str | int, psutil.Process] = {"kernel": psutil.Process()}
        for rank, pid in sorted(pids.items()):
            # it may have failed already
            with suppress(psutil.NoSuchProcess):
                self.processes[rank] = psutil.Process(pid)
        self.gpus = gpu_handles()
        self.sample()

    def sample(self) -> dict:
        """Return a sample as in the module's docstring; CPU use is the mean since the last one."""
        sample: dict = {"cpu_percent": psutil.cpu_percent(), "processes": []}
        for rank, process in self.processes.items():
            with suppress(psutil.NoSuchProcess), process.oneshot():
                percent = process.cpu_percent()
                memory = process.memory_info().rss / MIB
                sample["processes"].append(
                    {"rank": rank, "cpu_percent": round(percent, 1), "memory_mib": round(memory, 1)}
                )
        if self.gpus:
            sample["gpus"] = [gpu_use(gpu) for gpu in self.gpus]
        return sample


def gpu_use(gpu: Any) -> dict[str, float]:
    """Return percent of the time in which a GPU worked, MiB in use, watts, as far as known."""
    use = {}
    with suppress(pynvml.NVMLError):
        use["percent"] = pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu
    with suppress(pynvml.NVMLError):
        use["memory_mib"] = round(pynvml.nvmlDeviceGetMemoryInfo(gpu).used / MIB, 1)
    with suppress(pynvml.NVMLError):
        use["power_w"] = round(pynvml.nvmlDeviceGetPowerUsage(gpu) / 1000, 1)
    return use
