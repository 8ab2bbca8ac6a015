"""Checkpoints: adapter and optimizer through DeepSpeed's engine, never the frozen base.

    checkpoints/step-NNNNNNN/   what accelerate's save_state writes, and checkpoint.json: step and the hashes of the inputs

A checkpoint is written beside under another name and renamed when whole, so a torn one is never read. One of other
inputs (parameters, cache, code) is never resumed.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

KEPT = 2  # checkpoints; older ones are removed


@dataclass(frozen=True)
class Checkpoint:
    step: int
    folder: Path


def latest(folder: Path, inputs: dict[str, str]) -> Checkpoint | None:
    """The newest whole checkpoint of the same inputs."""
    found = []
    for candidate in folder.glob("step-*"):
        note = candidate / "checkpoint.json"
        if note.is_file() and (told := json.loads(note.read_text()))["inputs"] == inputs:
            found.append(Checkpoint(told["step"], candidate))
    return max(found, key=lambda checkpoint: checkpoint.step, default=None)


def save_checkpoint(accelerator, folder: Path, step: int, inputs: dict[str, str]):
    """Write `step-N`. Every process must call this."""
    beside = folder / f".step-{step:07d}.part"
    if accelerator.is_main_process:
        shutil.rmtree(beside, ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(beside), exclude_frozen_parameters=True)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        (beside / "checkpoint.json").write_text(json.dumps({"step": step, "inputs": inputs}))
        whole = folder / f"step-{step:07d}"
        shutil.rmtree(whole, ignore_errors=True)
        beside.rename(whole)
        for old in sorted(folder.glob("step-*"))[:-KEPT]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()


def resume(accelerator, checkpoint: Checkpoint) -> int:
    """Put back adapter and optimizer; the next step. Every process must call this."""
    accelerator.load_state(str(checkpoint.folder), load_module_strict=False)
    return checkpoint.step
