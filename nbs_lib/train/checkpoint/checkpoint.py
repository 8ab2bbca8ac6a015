"""Checkpoints on disk: the trained weights and their optimizer, never the frozen base.

    checkpoints/step-NNNNNNN/
      shared.safetensors      the state that is equal in every process, see `state`
      process-N.safetensors   the state of one process
      best.safetensors        the best weights before that step, if any, see `best`
      checkpoint.json         the step, the hashes of the inputs, the parameters, the size and the
                              SHA-256 of every file, and its own

The learning rate and the position in the data are functions of the step, so no file holds them.

A checkpoint is written under a hidden name and renamed when it is whole. A damaged one is skipped,
and the one before it is used. The hashes find damage; whoever can write into the folder can write
hashes too. Against code in a foreign checkpoint it helps that nothing in one is ever executed, see
`plain_values`.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import distributed

from ...config import Train
from ...files import value_hash, write_atomic
from ...launch.errors import RESUME_HINT, first_line
from ...run.continuation import checkpoint_name
from ...run.disk_space import free_space
from .plain_values import write

MANIFEST_FILE = "checkpoint.json"
SHARED_FILE = "shared.safetensors"
PROCESS_FILE = "process-{}.safetensors"
BEST_FILE = "best.safetensors"
FORMAT = 2  # the first one, without a number, consisted of pickles
MAX_MANIFEST_SIZE = 1 << 20  # bytes

# Hashes by name of what a result depends on: parameters, code, versions, outputs of prepare.
Inputs = dict[str, str]


class CheckpointError(RuntimeError):
    """A checkpoint that could not be written, or one that would be lost."""


class FirstFormatError(ValueError):
    """A checkpoint of the first format."""

    def __init__(self):
        super().__init__(
            "it is of an earlier version of Onepass, whose checkpoints can hold code and are not "
            "opened"
        )


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint by its manifest. files: the SHA-256 of each, by name."""

    step: int
    folder: Path
    inputs: Inputs
    parameters: dict
    files: dict[str, str]


def checkpoints_in(folder: Path, report: Callable = lambda message: None) -> list[Checkpoint]:
    """Return the checkpoints of a folder that have all their files, the oldest step first.

    report: called with a sentence about each damaged one.
    """
    checkpoints = []
    # an unfinished one has a hidden name, so it does not match
    for path in sorted(folder.glob("step-*")):
        try:
            checkpoints.append(read_checkpoint(path))
        except ValueError as failure:
            report(f"{path} is passed over: {failure}")
    return sorted(checkpoints, key=lambda checkpoint: checkpoint.step)


def read_checkpoint(folder: Path) -> Checkpoint:
    """Return a checkpoint by its manifest; its files are not read.

    Errors: ValueError, with what is wrong with it.
    """
    try:
        manifest = _read_manifest(folder)
        files = manifest["files"]
        sizes = {name: entry["bytes"] for name, entry in files.items()}
        hashes = {name: entry["sha256"] for name, entry in files.items()}
        # a file too many is as suspicious as one that is missing
        if _file_sizes(folder) != sizes or SHARED_FILE not in sizes:
            raise ValueError("a file is missing or cut off")
        step = manifest["step"]
        if not isinstance(step, int) or folder.name != checkpoint_name(step):
            raise ValueError(f"its {MANIFEST_FILE} is of another step")
        # `dict` fails for another type than an object
        inputs = dict(manifest["inputs"])
        return Checkpoint(step, folder, inputs, dict(manifest["parameters"]), hashes)
    except (OSError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError(f"its {MANIFEST_FILE} is missing or damaged") from None


def _read_manifest(folder: Path) -> dict:
    path = folder / MANIFEST_FILE
    # a link could lead to a file of another user
    if folder.is_symlink() or path.is_symlink() or not path.is_file():
        raise OSError
    # a huge one would fill the memory before it is refused
    if path.stat().st_size > MAX_MANIFEST_SIZE:
        raise OSError
    try:
        manifest = json.loads(path.read_text("utf-8"))
    except ValueError:
        raise OSError from None
    if "format" not in manifest and manifest["files"]:
        raise FirstFormatError
    if manifest.pop("hash") != value_hash(manifest):
        raise OSError
    return manifest


def _file_sizes(folder: Path) -> dict[str, int]:
    """Return the bytes of each file but the manifest, -1 for a folder or a link."""
    sizes = {}
    for path in folder.iterdir():
        if path.name != MANIFEST_FILE:
            regular = path.is_file() and not path.is_symlink()
            sizes[path.name] = path.stat().st_size if regular else -1
    return sizes


def save_checkpoint(
    accelerator,
    state,
    folder: Path,
    step: int,
    inputs: Inputs,
    config: Train,
):
    """Write `step-N`, and remove all but the newest of these inputs. Every process must call this.

    state: a `CheckpointState`.
    folder: checkpoints/ of the run.
    Errors: CheckpointError if the disk is full; the part is removed, the checkpoint before stays.
    """
    part = folder / f".{checkpoint_name(step)}.part"
    main = accelerator.is_main_process
    if main:
        _remove_parts(folder)
    # or the main process might remove the part that another one has begun
    accelerator.wait_for_everyone()
    try:
        part.mkdir(parents=True, exist_ok=True)
        process_file = PROCESS_FILE.format(accelerator.process_index)
        hashes = {process_file: write(part / process_file, state.process_state())}
        if main:
            hashes[SHARED_FILE] = write(part / SHARED_FILE, state.shared_state())
            hashes |= state.link_files(part, step)
        # every process has written its file when this returns
        all_hashes = all_gather(hashes)
        if main:
            _write_manifest(part, step, inputs, config, all_hashes)
    except (OSError, RuntimeError) as failure:
        shutil.rmtree(part, ignore_errors=True)
        raise write_error(f"the checkpoint of step {step}", folder, failure) from failure
    if main:
        _publish(part, folder / checkpoint_name(step), inputs, config.checkpoints_total_limit)
    accelerator.wait_for_everyone()


def write_error(content: str, folder: Path, failure: Exception) -> CheckpointError:
    """Return the error of something that could not be written to checkpoints/."""
    reason = first_line(failure) or type(failure).__name__
    return CheckpointError(
        f"{content} could not be written to {folder}, where {free_space(folder)}; "
        f"make room and {RESUME_HINT} ({reason})"
    )


def _write_manifest(
    folder: Path,
    step: int,
    inputs: Inputs,
    config: Train,
    all_hashes: list[dict],
):
    files = {}
    for hashes in all_hashes:
        for name, digest in hashes.items():
            files[name] = {"bytes": (folder / name).stat().st_size, "sha256": digest}
    manifest = {
        "format": FORMAT,
        "step": step,
        "inputs": inputs,
        "parameters": asdict(config),
        "files": files,
    }
    signed = manifest | {"hash": value_hash(manifest)}
    # last, because a folder without it is no checkpoint
    write_atomic(folder / MANIFEST_FILE, json.dumps(signed))


def _publish(part: Path, checkpoint: Path, inputs: Inputs, limit: int):
    """Rename a finished checkpoint to its place, and remove the ones that it replaces."""
    folder = checkpoint.parent
    # a damaged one of the same step may be in the way
    _remove(checkpoint)
    part.rename(checkpoint)
    same = [other.folder for other in checkpoints_in(folder) if other.inputs == inputs]
    # a later one of these inputs was skipped, or this training began before it
    kept = same[: same.index(checkpoint) + 1][-limit:]
    for old in set(folder.glob("step-*")) - set(kept):
        _remove(old)


def _remove_parts(folder: Path):
    """Remove the parts that killed trainings left: nobody else writes here."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in folder.glob(".step-*.part"):
        shutil.rmtree(part, ignore_errors=True)


def _remove(checkpoint: Path):
    if checkpoint.is_symlink():
        checkpoint.unlink()
        return
    # the manifest first: a removal that is killed leaves no checkpoint that looks whole
    (checkpoint / MANIFEST_FILE).unlink(missing_ok=True)
    shutil.rmtree(checkpoint, ignore_errors=True)


def all_gather(value: Any) -> list[Any]:
    """Return the values of all processes, by rank. Every process must call this."""
    if not distributed.is_initialized():
        return [value]
    values = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values
