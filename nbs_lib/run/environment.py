"""Versions, git commit and hardware, which a result depends on and a run records."""

import os
import platform
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..project import IN_CHECKOUT, ROOT

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
GIT_DESCRIBE = "git describe --always --abbrev=40 --dirty=+changes --exclude=*"


def environment() -> dict[str, Any]:
    """Return versions, git commit and hardware by the names of a run's record."""
    return {
        "versions": {"python": platform.python_version()} | versions(),
        "commit": git_commit(),
        "machine": hardware(),
    }


def versions() -> dict[str, str]:
    """Return the installed versions of PACKAGES; `absent` for a missing one."""
    return {package: _installed_version(package) for package in PACKAGES}


def _installed_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def git_commit() -> str | None:
    """Return the checkout's commit, with `+changes` if the work tree differs; None without git."""
    # the project of a wheel may be in a repository of its user's
    if not IN_CHECKOUT:
        return None
    # a tag would hide the commit, so all tags are excluded
    command = GIT_DESCRIBE.split()
    try:
        described = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=10
        )
    # no git, no checkout, or a checkout that git refuses as another user's
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()


def hardware() -> dict[str, Any]:
    """Return this machine's processor, cores, memory, GPUs and system."""
    # platform.processor() is empty or only the architecture on Linux
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
    """Return the names of the GPUs; [] without GPUs or without NVIDIA's driver."""
    # from the driver, because CUDA must stay untouched until the training's processes are forked
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # no such package, or no driver
        return []
    try:
        handles = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
        return [pynvml.nvmlDeviceGetName(handle) for handle in handles]
    except pynvml.NVMLError:
        return []
    finally:
        pynvml.nvmlShutdown()
