"""Checkpoints: what is trained and its optimizer, never the frozen base.

    checkpoints/step-NNNNNNN/
      shared.safetensors      what is equal in every process, see `state`
      process-N.safetensors   what one process alone has
      checkpoint.json         the step, the hashes of the inputs, the parameters, the SHA-256 of every file, and its own

State: the trained weights, the optimizer, the mean of the weights where one is kept, and the random generators of every
process. The schedule and the place in the data are functions of the step.

A checkpoint is written beside under another name and renamed when whole. One of other inputs (parameters as far as its steps
depend on them, see `course`; cache, code, process count) is not resumed unless it is named, and goes when the first one of the
new inputs is there. A damaged one is passed over, and the
one before it is used. The hashes find damage; whoever may write in the folder can write hashes too. Against code in a
foreign checkpoint helps that nothing in one is ever executed, see `plain`.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ...config import Train
from ...config.train import LATEST, NONE
from ...files import value_hash, write_atomic
from ...run.continuation import (
    RESUME_PARAMETER,
    changed_parameters,
    checkpoint_name,
    fixed_parameters,
    resume_conflicts,
)
from ...run.disk_space import free_space
from ..errors import GO_ON
from .plain_values import read, write

NOTE, SHARED, OWN = "checkpoint.json", "shared.safetensors", "process-{}.safetensors"
FORMAT = 2  # the first one, without a number, was pickles
LARGEST_NOTE = 1 << 20  # bytes


class CheckpointError(RuntimeError):
    """A checkpoint that could not be written, or one that would be lost."""


class EarlierError(ValueError):
    """A checkpoint of the first format."""

    def __init__(self):
        super().__init__(
            "it is of an earlier version of Onepass, whose checkpoints can hold code and are not opened"
        )


@dataclass(frozen=True)
class Checkpoint:
    """files: the SHA-256 of each, by its name."""

    step: int
    folder: Path
    inputs: dict[str, str]
    parameters: dict[str, Any]
    files: dict[str, str]


def inputs_of(inputs: dict[str, str], config: Train) -> dict[str, str]:
    """Return what a checkpoint rests on. inputs: of the stage; config: with nothing left to choose, on all hosts."""
    return inputs | {"parameters": value_hash(fixed_parameters(asdict(config)))}


def candidates(
    folder: Path, inputs: dict[str, str], config: Train, say=lambda said: None
) -> list[Checkpoint]:
    """Return the checkpoints that a training may go on from, the best one first; `say` hears of damaged ones.

    They have all their files, which `resume` hashes. Errors: CheckpointError where one was named that cannot be used.
    """
    same = [each for each in _newest_first(folder, inputs, say) if each.step <= config.steps]
    if same or getattr(config, RESUME_PARAMETER) in (LATEST, NONE):
        return same
    return [_named(folder, inputs, config)]


def newest(folder: Path) -> tuple[dict[str, Any], int]:
    """Return the parameters and the step of the newest whole checkpoint of any training; nothing and 0 without one."""
    found = max(_whole(folder), key=lambda checkpoint: checkpoint.step, default=None)
    return (found.parameters, found.step) if found else ({}, 0)


def _named(folder: Path, inputs: dict[str, str], config: Train) -> Checkpoint:
    name, whole = getattr(config, RESUME_PARAMETER), _whole(folder)
    if not (found := next((each for each in whole if each.folder.name == name), None)):
        there = ", ".join(each.folder.name for each in whole) or "none"
        raise CheckpointError(
            f"{RESUME_PARAMETER}: given {name!r}; {folder} has no whole checkpoint of that name; there is {there}"
        )
    if found.step > config.steps:
        raise CheckpointError(
            f"{RESUME_PARAMETER}: given {name!r}, which is beyond the {config.steps} steps asked for; give more steps"
        )
    differ = resume_conflicts(found.parameters, asdict(config))
    differ += [
        f"its {each} changed"
        for each in inputs
        if each != "parameters" and found.inputs.get(each) != inputs[each]
    ]
    if differ:
        raise CheckpointError(
            f"{RESUME_PARAMETER}: given {name!r}, which is of another training: {'; '.join(differ)}; only its length and its learning "
            "rate may differ"
        )
    return found


def refuse_earlier(folder: Path, inputs: dict[str, str], config: Train):
    """Errors: CheckpointError where there is nothing to go on from but checkpoints of an earlier version."""
    if candidates(folder, inputs, config) or getattr(config, RESUME_PARAMETER) != LATEST:
        return
    for candidate in sorted(folder.glob("step-*")):
        try:
            _read(candidate)
        except EarlierError as earlier:
            raise CheckpointError(
                f"{candidate} cannot be used: {earlier}; remove {folder} to start anew"
            ) from None
        except ValueError:
            continue


def refuse_others(folder: Path, inputs: dict[str, str], config: Train):
    """Errors: CheckpointError where there are checkpoints, but none to go on from: which differ, and what to do."""
    if candidates(folder, inputs, config) or getattr(config, RESUME_PARAMETER) != LATEST:
        return
    if not (checkpoints := _whole(folder)):
        return
    newest = max(checkpoints, key=lambda checkpoint: checkpoint.step)
    differ = changed_parameters(newest.parameters, asdict(config))
    differ += [
        f"its {name} changed"
        for name in inputs
        if name != "parameters" and newest.inputs.get(name) != inputs[name]
    ]
    differ = differ or [f"it is beyond the {config.steps} steps asked for"]
    raise CheckpointError(
        f"{newest.folder} is of an unfinished training that cannot go on like this: {'; '.join(differ)}; start it as it "
        f"was to go on, or remove {folder} to start anew"
    )


def _newest_first(folder: Path, inputs: dict[str, str], say=lambda said: None) -> list[Checkpoint]:
    same = [checkpoint for checkpoint in _whole(folder, say) if checkpoint.inputs == inputs]
    return sorted(same, key=lambda checkpoint: -checkpoint.step)


def _whole(folder: Path, say=lambda said: None) -> list[Checkpoint]:
    found = []
    for candidate in sorted(folder.glob("step-*")):
        try:
            found.append(_read(candidate))
        except ValueError as failure:
            say(f"{candidate} is passed over: {failure}")
    return found


def _read(folder: Path) -> Checkpoint:
    """Return a checkpoint by its note. Errors: ValueError, which says what is amiss with it."""
    try:
        note = _note(folder)
        sizes = {name: told["bytes"] for name, told in note["files"].items()}
        hashes = {name: told["sha256"] for name, told in note["files"].items()}
        if _sizes(folder) != sizes or SHARED not in sizes:
            raise ValueError("a file is missing or cut off")
        if not isinstance(note["step"], int) or folder.name != checkpoint_name(note["step"]):
            raise ValueError(f"its {NOTE} is of another step")
        return Checkpoint(
            note["step"], folder, dict(note["inputs"]), dict(note["parameters"]), hashes
        )
    except (OSError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError(f"its {NOTE} is missing or damaged") from None


def _note(folder: Path) -> dict[str, Any]:
    path = folder / NOTE
    if (
        folder.is_symlink()
        or path.is_symlink()
        or not path.is_file()
        or path.stat().st_size > LARGEST_NOTE
    ):
        raise OSError
    try:
        note = json.loads(path.read_text("utf-8"))
    except ValueError:
        raise OSError from None
    if "format" not in note and note["files"]:
        raise EarlierError
    if note.pop("hash") != value_hash(note):
        raise OSError
    return note


def _sizes(folder: Path) -> dict[str, int]:
    """The bytes of each file but the note; of what is no file of the folder's own, -1."""
    paths = (path for path in folder.iterdir() if path.name != NOTE)
    return {
        path.name: path.stat().st_size if path.is_file() and not path.is_symlink() else -1
        for path in paths
    }


def save_checkpoint(
    accelerator, state, folder: Path, step: int, inputs: dict[str, str], config: Train
):
    """Write `step-N`, and remove all but the newest of these inputs. Every process must call this.

    state: a `State`. Errors: CheckpointError where the disk takes no more; the checkpoint before is kept, and the part is
    removed.
    """
    beside = folder / f".{checkpoint_name(step)}.part"
    main, own = accelerator.is_main_process, OWN.format(accelerator.process_index)
    if main:
        _clear(folder)
    accelerator.wait_for_everyone()
    try:
        beside.mkdir(parents=True, exist_ok=True)
        hashes = {own: write(beside / own, state.own())}
        if main:
            hashes[SHARED] = write(beside / SHARED, state.shared())
        written = _from_all(hashes)
        if main:
            hashes = {name: digest for each in written for name, digest in each.items()}
            files = {
                name: {"bytes": (beside / name).stat().st_size, "sha256": digest}
                for name, digest in hashes.items()
            }
            note = {
                "format": FORMAT,
                "step": step,
                "inputs": inputs,
                "parameters": asdict(config),
                "files": files,
            }
            write_atomic(beside / NOTE, json.dumps(note | {"hash": value_hash(note)}))
    except (OSError, RuntimeError) as failure:
        shutil.rmtree(beside, ignore_errors=True)
        raise CheckpointError(
            f"the checkpoint of step {step} could not be written to {folder}, where {free_space(folder)}; "
            f"make room and {GO_ON} ({_said(failure)})"
        ) from failure
    if main:
        _put_in_place(
            beside, folder / checkpoint_name(step), inputs, config.checkpoints_total_limit
        )
    accelerator.wait_for_everyone()


def _put_in_place(beside: Path, whole: Path, inputs: dict[str, str], limit: int):
    _remove(whole)
    beside.rename(whole)
    same = [each.folder for each in _newest_first(whole.parent, inputs)]
    kept = same[same.index(whole) :][
        :limit
    ]  # a later one was passed over, or this training began before it
    for old in set(whole.parent.glob("step-*")) - set(kept):
        _remove(old)


def _clear(folder: Path):
    """Remove what killed trainings left: nobody else writes here."""
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(".step-*.part"):
        shutil.rmtree(left, ignore_errors=True)


def _said(failure: Exception) -> str:
    return (str(failure).strip().splitlines() or [type(failure).__name__])[0]


def _remove(checkpoint: Path):
    """In this order: a removal that is killed leaves no checkpoint that looks whole."""
    if checkpoint.is_symlink():
        checkpoint.unlink()
        return
    (checkpoint / NOTE).unlink(missing_ok=True)
    shutil.rmtree(checkpoint, ignore_errors=True)


def resume(accelerator, state, folder: Path, inputs: dict[str, str], config: Train) -> int:
    """Put back the best of the `candidates` that every process can load; return the next step, 0 without one.

    Every process must call this. One that a process cannot load is passed over by all, and the main one says why. Errors:
    CheckpointError where one that was passed over has left its traces and there is none to put back in its place.
    """
    touched = False
    # the main process' list counts: others may see a shared folder as it was
    for checkpoint in _from_all(candidates(folder, inputs, config))[0]:
        loaded, failure = _tried(_loaded, checkpoint, accelerator.process_index)
        if not failure:
            touched = True
            _, failure = _tried(state.restore, *loaded)
        if not failure:
            return checkpoint.step
        if accelerator.is_main_process:
            print(f"{checkpoint.folder} is damaged and passed over: {failure}", flush=True)
    if touched:
        raise CheckpointError(f"no checkpoint in {folder} can be loaded; remove it to start anew")
    return 0


def _loaded(checkpoint: Checkpoint, process: int) -> list[Any]:
    return [
        read(checkpoint.folder / name, checkpoint.files[name])
        for name in (SHARED, OWN.format(process))
    ]


def _tried(function: Callable, *arguments: Any) -> tuple[Any, str | None]:
    """Return what the function returns here, and what went wrong in the first process in which something did."""
    result, failure = None, None
    try:
        result = function(*arguments)
    except (
        Exception
    ) as error:  # a damaged file can raise anything, and the others wait for this process
        failure = f"{type(error).__name__}: {_said(error)}"
    return result, next((each for each in _from_all(failure) if each), None)


def _from_all(value: Any) -> list[Any]:
    """Return the values of all processes, by rank. Every process must call this."""
    if not torch.distributed.is_initialized():
        return [value]
    values = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values
