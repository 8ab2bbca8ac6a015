"""What a machine lacks for Onepass, and the command that mends it."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from ..files import ROOT
from ..pipeline.paths import outputs
from ..run.environment import gpus

GIB = 2**30
ENOUGH_DISK, ENOUGH_MEMORY = (
    5.0,
    4.0,
)  # GiB: for the demo and its caches, and for its three processes
SETUP = "make setup"
OPERATORS = """
import json
from deepspeed.ops.op_builder import CPUAdamBuilder, FusedAdamBuilder
from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder
builders = (CPUAdamBuilder, FusedAdamBuilder, ShareMemCommBuilder)
print(json.dumps({each.NAME: bool(each().is_compatible(verbose=False)) for each in builders}))
"""
PATIENCE = 60  # seconds for each question that is asked of another process


@dataclass(frozen=True)
class Finding:
    """what: that was looked at; state: good, note (something will not be there) or wrong; found; mend: a command, or ""."""

    what: str
    state: str
    found: str
    mend: str = ""


def examine() -> Iterator[Finding]:
    """Every finding, as it is made."""
    yield python()
    yield packages()
    yield from tools()
    yield from graphics()
    yield memory()
    yield disk()
    yield operators()
    yield hub()
    yield models()


def python() -> Finding:
    told = re.search(
        r'requires-python = ">=3\.(\d+),<3\.(\d+)"', (ROOT / "pyproject.toml").read_text("utf-8")
    )
    low, high = int(told[1]), int(told[2]) - 1
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[0] == 3 and low <= sys.version_info[1] <= high:
        return Finding("Python", "good", found)
    return Finding(
        "Python",
        "wrong",
        f"{found}; 3.{low} to 3.{high} is needed",
        f"make setup PYTHON=python3.{low}",
    )


def packages() -> Finding:
    """Those that the project asks for, against the versions that were tested."""
    import tomllib

    lines = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    wanted = [re.match(r"[\w.-]+", line)[0] for line in lines]
    pins = dict(
        line.lower().split("==")
        for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()
        if "==" in line
    )
    other = []
    for name in wanted:
        try:
            here = version(name).partition("+")[0]
        except PackageNotFoundError:
            here = "absent"
        if here != (
            pin := pins.get(
                name.lower().replace("_", "-"), pins.get(name.lower().replace("-", "_"))
            )
        ):
            other.append(f"{name} {here}, tested with {pin}")
    if not other:
        return Finding("packages", "good", f"{len(wanted)}, as tested")
    return Finding(
        "packages",
        "wrong",
        "; ".join(other),
        f"{sys.executable} -m pip install -c constraints.txt -e .",
    )


def tools() -> Iterator[Finding]:
    """What DeepSpeed compiles its operators with."""
    compiler = os.environ.get("CXX") or "c++"
    found = shutil.which(compiler) or shutil.which("g++")
    if found:
        yield Finding("C++ compiler", "good", found)
    else:
        yield Finding("C++ compiler", "wrong", f"no {compiler}, no g++", "apt-get install g++")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    if ninja := shutil.which("ninja", path=path):
        yield Finding("ninja", "good", ninja)
    else:
        yield Finding(
            "ninja", "wrong", "none", f"{sys.executable} -m pip install -c constraints.txt ninja"
        )


def graphics() -> Iterator[Finding]:
    names = gpus()
    if not names:
        hidden = shutil.which("nvidia-smi") is not None
        said = (
            "the driver does not answer"
            if hidden
            else "none: the embedded base trains on processors"
        )
        yield Finding("GPUs", "wrong" if hidden else "note", said, "nvidia-smi" if hidden else "")
        return
    yield Finding("GPUs", "good", ", ".join(names))
    if said := _asked(
        "import torch, json; torch.zeros(1, device='cuda'); print(json.dumps(torch.version.cuda))"
    ):
        yield Finding("torch and CUDA", "good", f"CUDA {said}")
    else:
        found = f"this torch ({version('torch')}) cannot use them"
        again = (
            f"{sys.executable} -m pip install --force-reinstall -c constraints.txt torch==2.13.0"
        )
        yield Finding("torch and CUDA", "wrong", found, again)


def memory() -> Finding:
    told = psutil.virtual_memory()
    found = f"{told.available / GIB:.1f} GiB free of {told.total / GIB:.1f}"
    if told.available >= ENOUGH_MEMORY * GIB:
        return Finding("memory", "good", found)
    return Finding(
        "memory",
        "note",
        f"{found}; the demo wants about {ENOUGH_MEMORY:g}",
        "ps aux --sort=-rss | head",
    )


def disk() -> Finding:
    """Room in outputs/, and whether it can be written to."""
    folder = next(each for each in (outputs(), *outputs().parents) if each.exists())
    free = shutil.disk_usage(folder).free
    probe = folder / f".doctor.{os.getpid()}.part"
    try:
        probe.write_bytes(b"x")
    except OSError as failure:
        return Finding(
            "disk",
            "wrong",
            f"{folder} cannot be written to: {failure.strerror}",
            f"chmod u+w {folder}",
        )
    finally:
        try:
            probe.unlink(missing_ok=True)
        except OSError:
            pass
    found = f"{free / GIB:.1f} GiB free in {folder}"
    return (
        Finding("disk", "good", found)
        if free >= ENOUGH_DISK * GIB
        else Finding("disk", "wrong", found, "onepass gc")
    )


def operators() -> Finding:
    """DeepSpeed's operators that can be compiled here; none is compiled for the answer."""
    told = _asked(OPERATORS)
    if not isinstance(told, dict):
        mend = "onepass run demo -p train.deepspeed=false"
        return Finding(
            "DeepSpeed's operators", "wrong", "DeepSpeed cannot be imported; without it:", mend
        )
    able = [
        name for name, there in told.items() if there and not (name == "fused_adam" and not gpus())
    ]
    lacks = [
        name
        for name, there in told.items()
        if not there and not (name == "fused_adam" and not gpus())
    ]
    if lacks:
        return Finding(
            "DeepSpeed's operators", "note", f"cannot be compiled: {', '.join(lacks)}", "ds_report"
        )
    return Finding("DeepSpeed's operators", "good", ", ".join(able))


def hub() -> Finding:
    """Whether the hub answers. Not needed for the embedded base."""
    if os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0"):
        return Finding("hub", "note", "not asked: HF_HUB_OFFLINE is set", "unset HF_HUB_OFFLINE")
    import urllib.error
    import urllib.request

    address = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=5):
            return Finding("hub", "good", f"{address} answers")
    except urllib.error.HTTPError as answer:
        return Finding("hub", "good", f"{address} answers with {answer.code}")
    except (OSError, ValueError) as failure:
        found = f"{address} does not answer ({getattr(failure, 'reason', failure)}); embedded and local bases work without it"
        return Finding("hub", "note", found, "export HF_HUB_OFFLINE=1")


def models() -> Finding:
    """What of the hub lies on this machine."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        told = sorted(scan_cache_dir().repos, key=lambda each: each.repo_id)
    except (CacheNotFound, OSError):
        told = []
    names = [
        f"{each.repo_id} ({each.size_on_disk / GIB:.1f} GiB)"
        for each in told
        if each.repo_type == "model"
    ]
    return Finding(
        "models of the hub", "good" if names else "note", ", ".join(names) or "none on this machine"
    )


def _asked(source: str):
    """What a fresh process says as JSON in its last line; None where it fails."""
    command = [sys.executable, "-W", "ignore", "-c", source]
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=True
        )
        return json.loads(done.stdout.strip().splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None
