"""What a result also depends on and a run records: versions, git commit, machine."""

import os
import platform
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..files import ROOT

PACKAGES = (
    "torch",
    "diffusers",
    "transformers",
    "accelerate",
    "deepspeed",
    "peft",
    "papermill",
    "numpy",
    "pillow",
)


def environment() -> dict[str, Any]:
    """Versions, git commit and machine: what a result also depends on."""
    return {
        "versions": {"python": platform.python_version()} | versions(),
        "commit": git_commit(),
        "machine": hardware(),
    }


def versions() -> dict[str, str]:
    """The versions of the packages that a result rests on."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


def git_commit() -> str | None:
    """The project's commit, with `+changes` where the work tree differs; None outside a git checkout."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty=+changes", "--exclude=*"],
            cwd=ROOT, capture_output=True, text=True, check=True, timeout=10,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()


def hardware() -> dict[str, Any]:
    """Processor, cores, memory, GPUs and system of this machine."""
    text = Path("/proc/cpuinfo").read_text() if sys.platform == "linux" else ""
    model = re.search(r"model name\s*: (.+)", text)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": model[1] if model else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory, 1),
        "gpus": gpus(),
        "system": platform.platform(terse=True),
    }


def gpus() -> list[str]:
    """Names of the GPUs, asked of the driver: CUDA must be untouched before processes are forked."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # no such package, or one without its driver: no GPUs
        return []
    try:
        return [
            pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(i))
            for i in range(pynvml.nvmlDeviceGetCount())
        ]
    except pynvml.NVMLError:
        return []
    finally:
        pynvml.nvmlShutdown()
