"""The command `doctor`, and its checks of this machine."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from ..project import IN_CHECKOUT, ROOT, SHIPPED, pip_requirement
from .app import AsJson, app, echo, exit_with, print_result, report_errors

# the versions that were tested
CONSTRAINTS = (ROOT if IN_CHECKOUT else SHIPPED) / "constraints.txt"
INSTALL = f"{sys.executable} -m pip install -c {CONSTRAINTS.name if IN_CHECKOUT else CONSTRAINTS}"
CUDA = "import torch, json; torch.zeros(1, device='cuda'); print(json.dumps(torch.version.cuda))"
DEEPSPEED = "import deepspeed, json; print(json.dumps(deepspeed.__version__))"


@dataclass(frozen=True)
class Finding:
    """A check's result. state: good, wrong, or note for a limit; fix: a command, or ""."""

    check: str
    state: str
    result: str
    fix: str = ""


@app.command()
def doctor(as_json: AsJson = False):
    """Check this machine and print a fix for each problem. Exits 1 if anything is wrong."""
    findings = []
    with report_errors():
        # printed one by one, because some checks take seconds
        for finding in run_checks():
            findings.append(finding)
            if not as_json:
                fix = f"\n{'':8}fix: {finding.fix}" if finding.fix else ""
                echo(f"{finding.state:6}  {finding.check}: {finding.result}{fix}")
        if as_json:
            print_result([asdict(finding) for finding in findings], [], True)
        wrong = [finding.check for finding in findings if finding.state == "wrong"]
        if wrong:
            exit_with(f"wrong here: {', '.join(wrong)}", 1)


def run_checks() -> Iterator[Finding]:
    """Yield each finding as soon as its check is done."""
    python, dependencies = requirements()
    # a wheel's metadata names the upper end first
    yield check_python(*sorted(re.findall(r"3\.(\d+)", python), key=int))
    yield check_packages(dependencies)
    yield check_compiler()
    yield check_gpus()
    yield from check_space()
    yield check_deepspeed()
    yield check_hub()
    yield list_models()


def requirements() -> tuple[str, list[str]]:
    """Return the range of Python, and the packages that Onepass depends on."""
    # imported here: every command imports this module
    from importlib.metadata import metadata, requires

    if IN_CHECKOUT:
        import tomllib

        # the metadata of an editable installation may be older
        project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
        return project["requires-python"], project["dependencies"]
    core = [line for line in requires("onepass") if "extra ==" not in line]
    return metadata("onepass")["Requires-Python"], core


def _finding(
    check: str,
    good: object,
    result: str,
    fix: str = "",
    other: str = "wrong",
) -> Finding:
    return Finding(check, "good", result) if good else Finding(check, other, result, fix)


def check_python(low: str, high: str) -> Finding:
    """Check that the interpreter is at least 3.`low` and below 3.`high`."""
    good = (3, int(low)) <= sys.version_info[:2] < (3, int(high))
    result = ".".join(map(str, sys.version_info[:3]))
    result += "" if good else f"; 3.{low} to 3.{int(high) - 1} is needed"
    # an installed wheel has no Makefile
    fix = f"make setup PYTHON=python3.{low}" if IN_CHECKOUT else f"python3.{low} -m venv new"
    return _finding("Python", good, result, fix)


def check_packages(dependencies: list[str]) -> Finding:
    """Check the installed packages against the versions that were tested."""
    from importlib.metadata import PackageNotFoundError, version

    lines = CONSTRAINTS.read_text("utf-8").lower().splitlines()
    pins = dict(line.replace("_", "-").split("==") for line in lines if "==" in line)
    wrong = []
    for dependency in dependencies:
        name = re.match(r"[\w.-]+", dependency)[0]
        pin = pins.get(name.lower().replace("_", "-"))
        try:
            # torch's version ends in +cpu or +cu130, its pin does not
            installed = version(name).partition("+")[0]
        except PackageNotFoundError:
            installed = "absent"
        if installed != pin:
            wrong.append(f"{name} {installed}, tested with {pin}")
    result = "; ".join(wrong) or f"{len(dependencies)}, as tested"
    # platforms bring their own torch, which the range allows
    others = [line for line in wrong if not line.startswith("torch ")]
    other = "wrong" if others else "note"
    return _finding("packages", not wrong, result, f"{INSTALL} {pip_requirement()}", other)


def check_compiler() -> Finding:
    """Check for a C++ compiler, which only contenders `on compile` need."""
    names = [os.environ.get("CXX") or "c++", "g++"]
    location = next(filter(None, map(shutil.which, names)), None)
    result = location or "none: only contenders `on compile` need one"
    return _finding("C++ compiler", location, result, "apt-get install g++", "note")


def check_gpus() -> Finding:
    """Check that the GPUs' driver answers, and that torch can use them."""
    from ..run.environment import gpus

    if names := ", ".join(gpus()):
        cuda = _ask_process(CUDA)
        result = f"{names}; torch {f'has CUDA {cuda}' if cuda else 'cannot use them'}"
        return _finding("GPUs", cuda, result, f"{INSTALL} --force-reinstall torch")
    if shutil.which("nvidia-smi"):
        # the program is there, so a GPU is meant to be
        return Finding("GPUs", "wrong", "the driver does not answer", "nvidia-smi")
    return Finding("GPUs", "note", "none: the embedded base trains on processors")


def check_space() -> Iterator[Finding]:
    """Check the free memory and disk for the demo, and that outputs/ can be written to."""
    import psutil

    from ..pipeline.paths import outputs

    memory = psutil.virtual_memory().available / 2**30
    result = f"{memory:.1f} GiB free; the demo's processes need about 4"
    # too little is no error: another program may free it
    yield _finding("memory", memory >= 4, result, "ps aux --sort=-rss | head", "note")
    # outputs/ may not exist yet, and its parent tells the disk
    folder = next(path for path in (outputs(), *outputs().parents) if path.exists())
    disk = shutil.disk_usage(folder).free / 2**30
    if os.access(folder, os.W_OK):
        result = f"{disk:.1f} GiB free in {folder}; the demo and its caches need about 5"
        yield _finding("disk", disk >= 5, result, "onepass gc")
    else:
        yield Finding("disk", "wrong", f"{folder} cannot be written to", f"chmod u+w {folder}")


def check_deepspeed() -> Finding:
    """Check that DeepSpeed can be imported."""
    version = _ask_process(DEEPSPEED)
    result = version or "it cannot be imported; without it:"
    return _finding("DeepSpeed", version, result, "onepass run demo -p train.deepspeed=false")


def check_hub() -> Finding:
    """Check that the hub answers, which the embedded base does not need."""
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    if os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0"):
        return Finding("hub", "note", "not asked: HF_HUB_OFFLINE is set", "unset HF_HUB_OFFLINE")
    address = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        # HEAD: no page is transferred
        urlopen(Request(address, method="HEAD"), timeout=5).close()
    except HTTPError as answer:
        # an error page is an answer too
        return Finding("hub", "good", f"{address} answers with {answer.code}")
    except (OSError, ValueError) as failure:
        reason = getattr(failure, "reason", failure)
        result = f"{address} does not answer ({reason}); embedded and local bases work without it"
        return Finding("hub", "note", result, "export HF_HUB_OFFLINE=1")
    return Finding("hub", "good", f"{address} answers")


def list_models() -> Finding:
    """List the hub's models on this machine."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        models = [repo for repo in scan_cache_dir().repos if repo.repo_type == "model"]
    except (CacheNotFound, OSError):
        # no model was ever fetched
        models = []
    names = sorted(f"{model.repo_id} ({model.size_on_disk / 2**30:.1f} GiB)" for model in models)
    result = ", ".join(names) or "none on this machine"
    return _finding("models of the hub", models, result, other="note")


def _ask_process(source: str):
    """Return the JSON that a fresh process prints last, None if it fails."""
    command = [sys.executable, "-W", "ignore", "-c", source]
    # in a process of its own, because importing DeepSpeed and CUDA changes the process
    options = {"cwd": ROOT, "stderr": subprocess.DEVNULL, "text": True, "timeout": 60}
    try:
        return json.loads(subprocess.check_output(command, **options).strip().splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None
