"""A run: one folder with fixed file names, and the record of what was asked and what happened.

outputs/NAME/
  run.json                 the record, see `Run.stage`
  1_prepare.ipynb …        executed notebooks
  cache -> ../cache/KEY    latents and text embeddings, shared between runs
  metrics.jsonl            a line for each logged step
  usage.jsonl              a line for each second: CPU, memory, GPU
  checkpoints/step-N/      adapter and optimizer
  adapter/                 the LoRA and its card
  compare/                 pictures, results.json
  report.html              one self-contained page
"""

import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .config import STAGES, as_parameters

ROOT = Path(__file__).resolve().parent.parent
"""The project: relative run folders are taken from here."""
PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "deepspeed", "peft", "papermill")
SHARED = ("config.py", "run.py", "models.py", "adapter.py", "diffusion.py")


def write_atomic(path: Path, content: str | bytes):
    """Write beside and rename: a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with beside.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def value_hash(value: Any) -> str:
    """SHA-256 of a plain value's canonical JSON, in hex."""
    return sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def code_hash(*rooms: str) -> str:
    """Hash of the library's source that a stage rests on: its own room and the modules that all share."""
    package = Path(__file__).parent
    files = [package / name for name in SHARED]
    files += sorted(path for room in rooms for path in (package / room).rglob("*.py"))
    return value_hash([[str(path.relative_to(package)), file_hash(path)] for path in files if path.exists()])


class Run:
    """A run's folder; see the module's docstring for what is in it. Nothing is written before a stage begins."""

    def __init__(self, folder: str | Path):
        """folder: absolute, or relative to the project."""
        self.folder = ROOT / folder
        self.record = self.folder / "run.json"
        self.cache = self.folder / "cache"
        self.metrics = self.folder / "metrics.jsonl"
        self.usage = self.folder / "usage.jsonl"
        self.checkpoints = self.folder / "checkpoints"
        self.adapter = self.folder / "adapter"
        self.compare = self.folder / "compare"
        self.report = self.folder / "report.html"

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def cache_store(self) -> Path:
        """Where the caches of this run and its neighbours are."""
        return self.folder.parent / "cache"

    def notebook(self, stage: str) -> Path:
        """The executed notebook of a stage."""
        return self.folder / f"{list(STAGES).index(stage) + 1}_{stage}.ipynb"

    def read(self) -> dict[str, Any]:
        """The record; a run that never began has an empty one."""
        return json.loads(self.record.read_text()) if self.record.exists() else {}

    def update(self, **changes: Any):
        """Replace parts of the record, atomically."""
        write_atomic(self.record, json.dumps(self.read() | changes, indent=1, ensure_ascii=False) + "\n")

    def stage_record(self, stage: str) -> dict[str, Any]:
        return self.read().get("stages", {}).get(stage, {})

    def update_stage(self, stage: str, **changes: Any):
        stages = self.read().get("stages", {})
        self.update(stages=stages | {stage: stages.get(stage, {}) | changes})

    def require(self, stage: str):
        """Errors: FileNotFoundError where an earlier stage has not been done, with what to do."""
        if self.stage_record(stage).get("status") != "done":
            notebook = self.notebook(stage).name
            raise FileNotFoundError(
                f"{self.folder} has no finished {stage} stage; run notebooks/{notebook} with run = {str(self.folder)!r}, "
                f"or `onepass run`"
            )

    def inputs(self, config: Any) -> dict[str, str]:
        """What a stage's result depends on, each as a hash: its parameters, the code, and the outputs of the stage before."""
        stage = stage_of(config)
        order = list(STAGES)
        parameters = {name: value for name, value in as_parameters(config).items() if name != "run"}
        hashes = {"parameters": value_hash(parameters), "code": code_hash(stage, "picturebook")}
        for before in order[: order.index(stage)]:
            hashes[before] = value_hash(self.stage_record(before).get("outputs", {}))
        return hashes

    def changed(self, config: Any) -> list[str]:
        """Why a stage must be done (again): the names of what changed; empty if it is done and still holds."""
        done = self.stage_record(stage_of(config))
        if done.get("status") != "done":
            return ["not done yet"]
        now, outputs = self.inputs(config), done["outputs"]
        reasons = [name for name, value in now.items() if done["inputs"].get(name) != value]
        return reasons + [name for name, digest in outputs.items() if not self._holds(name, digest)]

    def _holds(self, name: str, digest: str) -> bool:
        path = self.folder / name
        return path.exists() and file_hash(path) == digest

    @contextmanager
    def stage(self, config: Any) -> Iterator[dict[str, Any]]:
        """Keep the record of a stage while it runs.

        Written when the stage begins (status running), and when it ends: done, failed (with the error) or interrupted.
        Yields a dict: `outputs` takes the paths, relative to the run, whose hashes later stages rest on; every other key
        is recorded as it is.
        """
        stage, start = stage_of(config), time.perf_counter()
        begun = {
            "status": "running",
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "parameters": as_parameters(config),
            "inputs": self.inputs(config),
        }
        record = self.read()
        self.update(**facts(), name=self.name, status="running", stages=record.get("stages", {}) | {stage: begun})
        told: dict[str, Any] = {"outputs": []}
        status, error = "interrupted", None
        try:
            yield told
            told["outputs"] = {str(name): file_hash(self.folder / name) for name in told["outputs"]}
            status = "done"
        except Exception as failure:
            # torch's SignalException, raised when a kernel is interrupted during a launch, is an Exception too
            if type(failure).__name__ != "SignalException":
                status, error = "failed", f"{type(failure).__name__}: {failure}"
            raise
        finally:
            if status != "done":
                told = {"error": error} if error else {}
            self.update_stage(stage, **told, status=status, seconds=round(time.perf_counter() - start, 1))
            last = stage == list(STAGES)[-1]
            self.update(status=("done" if last else "running") if status == "done" else status)


def stage_of(config: Any) -> str:
    return next(stage for stage, cls in STAGES.items() if isinstance(config, cls))


def facts() -> dict[str, Any]:
    """Versions, git commit and machine: what a result also depends on."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "absent"
    return {"versions": versions, "commit": git_commit(), "machine": machine()}


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


def machine() -> dict[str, Any]:
    """Processor, cores, memory and system of this machine."""
    text = Path("/proc/cpuinfo").read_text() if sys.platform == "linux" else ""
    model = re.search(r"model name\s*: (.+)", text)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": model[1] if model else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory, 1),
        "system": platform.platform(terse=True),
    }
