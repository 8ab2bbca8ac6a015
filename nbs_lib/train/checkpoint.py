"""Checkpoints: adapter and optimizer through DeepSpeed's engine, never the frozen base.

    checkpoints/step-NNNNNNN/   what accelerate's save_state writes, and checkpoint.json: step and the hashes of the inputs

A checkpoint is written beside under another name and renamed when whole, so a torn one is never read. One of other
inputs (parameters, cache, code, process count) is never resumed, and goes when the first one of the new inputs is there.
accelerate and DeepSpeed keep their states as pickles: only what this run's own training wrote is ever loaded.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from ..files import write_atomic

KEPT = 2  # checkpoints; older ones are removed
NOTE = "checkpoint.json"


@dataclass(frozen=True)
class Checkpoint:
    step: int
    folder: Path


def latest(folder: Path, inputs: dict[str, str]) -> Checkpoint | None:
    """The newest whole checkpoint of the same inputs; one whose note is missing or damaged is passed over."""
    return max(_of(folder, inputs), key=lambda checkpoint: checkpoint.step, default=None)


def _of(folder: Path, inputs: dict[str, str]) -> list[Checkpoint]:
    found = []
    for candidate in folder.glob("step-*"):
        try:
            told = json.loads((candidate / NOTE).read_text())
            if told["inputs"] == inputs:
                found.append(Checkpoint(told["step"], candidate))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


def save_checkpoint(accelerator, folder: Path, step: int, inputs: dict[str, str]):
    """Write `step-N`, and remove all but the newest of these inputs. Every process must call this."""
    beside = folder / f".step-{step:07d}.part"
    if accelerator.is_main_process:
        shutil.rmtree(beside, ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(beside), exclude_frozen_parameters=True)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        write_atomic(beside / NOTE, json.dumps({"step": step, "inputs": inputs}))
        whole = folder / f"step-{step:07d}"
        _remove(whole)
        beside.rename(whole)
        newest = sorted(_of(folder, inputs), key=lambda checkpoint: checkpoint.step)[-KEPT:]
        for old in set(folder.glob("step-*")) - {checkpoint.folder for checkpoint in newest}:
            _remove(old)
    accelerator.wait_for_everyone()


def _remove(checkpoint: Path):
    """In this order: a removal that is killed leaves no checkpoint that looks whole."""
    (checkpoint / NOTE).unlink(missing_ok=True)
    shutil.rmtree(checkpoint, ignore_errors=True)


def resume(accelerator, checkpoint: Checkpoint) -> int:
    """Put back adapter and optimizer; the next step. Every process must call this."""
    accelerator.load_state(str(checkpoint.folder), load_module_strict=False)
    return checkpoint.step
