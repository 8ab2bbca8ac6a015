"""Checkpoints: what is trained and its optimizer, never the frozen base.

    checkpoints/step-NNNNNNN/   what accelerate's save_state writes, and checkpoint.json: the step, the hashes of the inputs,
                                the parameters, and the size of every file

State: the trained weights, the optimizer, the mean of the weights where one is kept, and the random generators of every
process. The schedule and the place in the data are functions of the step.

A checkpoint is written beside under another name and renamed when whole. One of other inputs (parameters, cache, code,
process count) is never resumed, and goes when the first one of the new inputs is there. accelerate and DeepSpeed keep their
states as pickles: only what this run's own training wrote is ever loaded.
"""

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ..config import PLACE, Train
from ..disk import room
from ..files import write_atomic
from .failure import GO_ON

KEPT = 2  # checkpoints; older ones are removed
NOTE = "checkpoint.json"


class CheckpointError(RuntimeError):
    """A checkpoint that could not be written, or one that would be lost."""


@dataclass(frozen=True)
class Checkpoint:
    step: int
    folder: Path
    inputs: dict[str, str]
    parameters: dict[str, Any]


def latest(folder: Path, inputs: dict[str, str], say=lambda said: None) -> Checkpoint | None:
    """The newest whole checkpoint of the same inputs; a torn one is passed over, and `say` is told."""
    same = [checkpoint for checkpoint in _whole(folder, say) if checkpoint.inputs == inputs]
    return max(same, key=lambda checkpoint: checkpoint.step, default=None)


def refuse_others(folder: Path, inputs: dict[str, str], config: Train):
    """Errors: CheckpointError where there are checkpoints, but of other inputs: which differ, and what to do."""
    checkpoints = _whole(folder)
    if not checkpoints or any(checkpoint.inputs == inputs for checkpoint in checkpoints):
        return
    newest, now = max(checkpoints, key=lambda checkpoint: checkpoint.step), asdict(config)
    before = newest.parameters
    differing = [
        f"{name} was {before.get(name)!r} and is {now[name]!r}"
        for name in now
        if name not in PLACE and before.get(name) != now[name]
    ]
    differing += [f"its {name} changed" for name in inputs if name != "parameters" and newest.inputs.get(name) != inputs[name]]
    raise CheckpointError(
        f"{newest.folder} is of an unfinished training that cannot go on like this: {'; '.join(differing)}; start it as it "
        f"was to go on, or remove {folder} to start anew"
    )


def _whole(folder: Path, say=lambda said: None) -> list[Checkpoint]:
    found = []
    for candidate in folder.glob("step-*"):
        try:
            told = json.loads((candidate / NOTE).read_text("utf-8"))
            checkpoint = Checkpoint(told["step"], candidate, told["inputs"], told["parameters"])
            if _sizes(candidate) != told["files"]:
                raise ValueError("a file is missing or cut off")
            found.append(checkpoint)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            say(f"{candidate} is torn and passed over")
    return found


def _sizes(folder: Path) -> dict[str, int]:
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != NOTE)
    return {str(path.relative_to(folder)): path.stat().st_size for path in paths}


def save_checkpoint(accelerator, folder: Path, step: int, inputs: dict[str, str], config: Train):
    """Write `step-N`, and remove all but the newest of these inputs. Every process must call this.

    Errors: CheckpointError where the disk takes no more; the checkpoint before is kept, and the part is removed.
    """
    beside = folder / f".step-{step:07d}.part"
    if accelerator.is_main_process:
        _clear(folder)
    accelerator.wait_for_everyone()
    try:
        accelerator.save_state(str(beside), exclude_frozen_parameters=True)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            for name in (sizes := _sizes(beside)):
                _onto_the_disk(beside / name)
            note = {"step": step, "inputs": inputs, "parameters": asdict(config), "files": sizes}
            write_atomic(beside / NOTE, json.dumps(note))
    except (OSError, RuntimeError) as failure:
        shutil.rmtree(beside, ignore_errors=True)
        raise CheckpointError(
            f"the checkpoint of step {step} could not be written to {folder}, where {room(folder)}; "
            f"make room and {GO_ON} ({_said(failure)})"
        ) from failure
    if accelerator.is_main_process:
        whole = folder / f"step-{step:07d}"
        _remove(whole)
        beside.rename(whole)
        same = [checkpoint for checkpoint in _whole(folder) if checkpoint.inputs == inputs]
        newest = sorted(same, key=lambda checkpoint: checkpoint.step)[-KEPT:]
        for old in set(folder.glob("step-*")) - {checkpoint.folder for checkpoint in newest}:
            _remove(old)
    accelerator.wait_for_everyone()


def _clear(folder: Path):
    """Remove what killed trainings left: nobody else writes here."""
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(".step-*.part"):
        shutil.rmtree(left, ignore_errors=True)


def _onto_the_disk(path: Path):
    """So that a machine that loses its power has the file, not its name alone."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _said(failure: Exception) -> str:
    return (str(failure).strip().splitlines() or [type(failure).__name__])[0]


def _remove(checkpoint: Path):
    """In this order: a removal that is killed leaves no checkpoint that looks whole."""
    (checkpoint / NOTE).unlink(missing_ok=True)
    shutil.rmtree(checkpoint, ignore_errors=True)


def resume(accelerator, checkpoint: Checkpoint | None) -> int:
    """Put back what was trained and its optimizer; the next step. Every process must call this; the main one's counts."""
    from accelerate.utils import broadcast_object_list

    place = [str(checkpoint.folder) if checkpoint else None, checkpoint.step if checkpoint else 0]
    folder, step = broadcast_object_list(place)
    if folder:
        accelerator.load_state(folder, load_module_strict=False)
    return step


class _Trained:
    """The trained weights as accelerate keeps an object's state."""

    def __init__(self, parameters: list[torch.nn.Parameter]):
        self.parameters = parameters

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {str(i): parameter.detach() for i, parameter in enumerate(self.parameters)}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, torch.Tensor]):
        for i, parameter in enumerate(self.parameters):
            parameter.copy_(state[str(i)])


def keep_what_is_trained(accelerator, parameters: list[torch.nn.Parameter]):
    """Without DeepSpeed, accelerate would keep the whole model, the frozen base and all, in every checkpoint."""
    accelerator.register_save_state_pre_hook(lambda models, weights, folder: weights.clear())
    accelerator.register_load_state_pre_hook(lambda models, folder: models.clear())
    accelerator.register_for_checkpointing(_Trained(parameters))
