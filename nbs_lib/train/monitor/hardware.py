"""What the machine, the training's processes and its GPUs do at a moment.

    {"cpu_percent": 97.5, "processes": [{"rank": "kernel", "cpu_percent": 0.4, "memory_mib": 610.2},
                                        {"rank": 0, "cpu_percent": 98.1, "memory_mib": 1230.7}, …],
     "gpus": [{"percent": 93, "memory_mib": 30211.4, "power_w": 412.6}, …]}

cpu_percent: of the machine, where 100 is all of its cores; of a process, where 100 is one core. memory_mib: resident, so
that pages which forked processes share count in each. gpus: those that CUDA may use, in its order, where there is a driver;
a number that it does not tell, as it may not for a part of a GPU, is left out.
"""

import os
from contextlib import suppress
from typing import Any

import psutil
import pynvml


class HardwareSampler:
    """Looks at this process, the kernel, at those of the ranks, and at the GPUs.

    Made after the processes were forked: NVML is not to be used on both sides of a fork.
    """

    def __init__(self, pids: dict[int, int]):
        """pids: of each rank."""
        # kept from one look to the next: CPU use is what was used since the last look
        self.processes: dict[str | int, psutil.Process] = {"kernel": psutil.Process()}
        for rank, pid in sorted(pids.items()):
            with suppress(psutil.NoSuchProcess):
                self.processes[rank] = psutil.Process(pid)
        self.gpus = gpu_handles()
        self.look()

    def look(self) -> dict[str, Any]:
        """A line of the module's docstring; CPU use is a mean since the look before."""
        told: dict[str, Any] = {"cpu_percent": psutil.cpu_percent(), "processes": []}
        for rank, process in self.processes.items():
            with suppress(psutil.NoSuchProcess), process.oneshot():
                percent, resident = process.cpu_percent(), process.memory_info().rss
                use = {"cpu_percent": round(percent, 1), "memory_mib": round(resident / 2**20, 1)}
                told["processes"].append({"rank": rank} | use)
        return told | ({"gpus": [gpu_use(gpu) for gpu in self.gpus]} if self.gpus else {})


def gpu_handles() -> list:
    """NVML's handles of the GPUs that CUDA may use; [] without a driver, or where it does not know one of them."""
    try:
        pynvml.nvmlInit()
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = (
            [str(i) for i in range(pynvml.nvmlDeviceGetCount())]
            if visible is None
            else visible.split(",")
        )
        names = [name.strip() for name in names if name.strip()]
        by_index, by_uuid = pynvml.nvmlDeviceGetHandleByIndex, pynvml.nvmlDeviceGetHandleByUUID
        return [by_index(int(name)) if name.isdigit() else by_uuid(name) for name in names]
    except pynvml.NVMLError:
        return []


def gpu_use(gpu: Any) -> dict[str, float]:
    """What the driver tells of a GPU: percent of the time in which it worked, MiB that are taken, watts."""
    asked = {
        "percent": lambda: pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu,
        "memory_mib": lambda: round(pynvml.nvmlDeviceGetMemoryInfo(gpu).used / 2**20, 1),
        "power_w": lambda: round(pynvml.nvmlDeviceGetPowerUsage(gpu) / 1000, 1),
    }
    told = {}
    for name, ask in asked.items():
        with suppress(pynvml.NVMLError):
            told[name] = ask()
    return told
