"""A profile of training steps in a few numbers: where the GPU's time goes, and when it waits."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

STEPS, TOP = 3, 12


def profile_summary(step: Callable, gpu: bool) -> dict[str, Any]:
    """Return the largest kernels, the share of copies, and the share of time that nothing computes.

    Without a GPU the kernels are torch's operations.
    """
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
    step()
    with profile(activities=activities) as profiler:
        start = time.perf_counter()
        for _ in range(STEPS):
            # the loss is on the CPU then, so a GPU is done
            float(step().detach())
        seconds = time.perf_counter() - start
    kernels = {}
    for event in profiler.key_averages():
        on_gpu = event.device_type == torch.autograd.DeviceType.CUDA
        microseconds = event.self_device_time_total if gpu else event.self_cpu_time_total
        if on_gpu == gpu and microseconds:
            kernels[event.key] = (microseconds / 1e6, event.count)
    busy = sum(kernel_seconds for kernel_seconds, _ in kernels.values())
    largest = sorted(kernels, key=kernels.get, reverse=True)[:TOP]
    copies = sum(value[0] for name, value in kernels.items() if "copy" in name.lower())
    return {
        "seconds_a_step": seconds / STEPS,
        "launches_a_step": sum(count for _, count in kernels.values()) / STEPS,
        "copies": copies / busy,
        "gaps": max(0.0, 1 - busy / seconds),
        "largest": {name: kernels[name][0] / busy for name in largest},
    }
