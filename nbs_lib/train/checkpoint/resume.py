"""The checkpoint that a training resumes from, found and loaded.

A training resumes a checkpoint with equal inputs: the parameters as far as its steps depend on them
(see `run/continuation.py`), the cache, the code and the process count. Another one is resumed only
if it is named, and is removed when the first one of the new inputs is written.
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...config import Train
from ...config.training import LATEST, NONE
from ...files import value_hash
from ...launch.errors import first_line
from ...run.continuation import (
    RESUME_PARAMETER,
    changed_parameters,
    fixed_parameters,
    resume_conflicts,
)
from .checkpoint import (
    BEST_FILE,
    PROCESS_FILE,
    SHARED_FILE,
    Checkpoint,
    CheckpointError,
    FirstFormatError,
    Inputs,
    all_gather,
    checkpoints_in,
    read_checkpoint,
)
from .plain_values import check_hash, read


def checkpoint_inputs(inputs: Inputs, config: Train) -> Inputs:
    """Return the hashes that a checkpoint depends on.

    inputs: of the stage.
    config: with nothing left to choose, and the process count of all hosts.
    """
    return inputs | {"parameters": value_hash(fixed_parameters(asdict(config)))}


def candidates(
    folder: Path, inputs: Inputs, config: Train, report: Callable = lambda message: None
) -> list[Checkpoint]:
    """Return the checkpoints that a training may resume from, the best one first.

    They have all their files; `resume` checks the hashes.
    report: called with a sentence about each damaged one.
    Errors: CheckpointError if one is named that cannot be used.
    """
    # the hashes of a large state take long, and this is called several times
    usable = [
        checkpoint
        for checkpoint in reversed(checkpoints_in(folder, report))
        if checkpoint.inputs == inputs and checkpoint.step <= config.steps
    ]
    if usable or config.resume_from_checkpoint in (LATEST, NONE):
        return usable
    return [_named_checkpoint(folder, inputs, config)]


def newest(folder: Path) -> tuple[dict, int]:
    """Return the parameters and the step of the newest checkpoint of any training, or {} and 0."""
    checkpoints = checkpoints_in(folder)
    return (checkpoints[-1].parameters, checkpoints[-1].step) if checkpoints else ({}, 0)


def _named_checkpoint(folder: Path, inputs: Inputs, config: Train) -> Checkpoint:
    name = config.resume_from_checkpoint
    problem = f"{RESUME_PARAMETER}: given {name!r}"
    checkpoints = {checkpoint.folder.name: checkpoint for checkpoint in checkpoints_in(folder)}
    if name not in checkpoints:
        raise CheckpointError(
            f"{problem}; {folder} has no whole checkpoint of that name; there is "
            f"{', '.join(checkpoints) or 'none'}"
        )
    checkpoint = checkpoints[name]
    # its weights have learned in more steps than these
    if checkpoint.step > config.steps:
        raise CheckpointError(
            f"{problem}, which is beyond the {config.steps} steps asked for; give more steps"
        )
    differences = resume_conflicts(checkpoint.parameters, asdict(config))
    differences += _changed_inputs(checkpoint, inputs)
    if differences:
        raise CheckpointError(
            f"{problem}, which is of another training: {'; '.join(differences)}; only its length "
            "and its learning rate may differ"
        )
    return checkpoint


def _changed_inputs(checkpoint: Checkpoint, inputs: Inputs) -> list[str]:
    """Return in words which inputs, without the parameters, are others than the checkpoint's."""
    # of the parameters there is a better sentence, which names them
    before = checkpoint.inputs
    names = [name for name in inputs if name != "parameters" and before.get(name) != inputs[name]]
    return [f"its {name} changed" for name in names]


def refuse_first_format(folder: Path, inputs: Inputs, config: Train):
    """Check that checkpoints of the first format are not silently ignored.

    Errors: CheckpointError if there are some and no other one to resume from.
    """
    if not _starts_over(folder, inputs, config):
        return
    for path in sorted(folder.glob("step-*")):
        try:
            read_checkpoint(path)
        except FirstFormatError as failure:
            raise CheckpointError(
                f"{path} cannot be used: {failure}; remove {folder} to start again from step 0"
            ) from None
        except ValueError:
            # a damaged one says nothing of its format
            continue


def refuse_others(folder: Path, inputs: Inputs, config: Train):
    """Check that checkpoints of another training are not silently lost.

    Errors: CheckpointError if there are some and none to resume from, with the differences.
    """
    checkpoints = checkpoints_in(folder)
    if not checkpoints or not _starts_over(folder, inputs, config):
        return
    checkpoint = checkpoints[-1]
    differences = changed_parameters(checkpoint.parameters, asdict(config))
    differences += _changed_inputs(checkpoint, inputs)
    differences = differences or [f"it is beyond the {config.steps} steps asked for"]
    raise CheckpointError(
        f"{checkpoint.folder} is of an unfinished training that cannot go on like this: "
        f"{'; '.join(differences)}; start it as it was to go on, or remove {folder} to start again "
        "from step 0"
    )


def _starts_over(folder: Path, inputs: Inputs, config: Train) -> bool:
    """Return True if a training would resume, but has nothing to resume from."""
    resumable = candidates(folder, inputs, config)
    return not resumable and config.resume_from_checkpoint == LATEST


def resume(
    accelerator,
    state,
    folder: Path,
    inputs: Inputs,
    config: Train,
) -> int:
    """Restore the best candidate that every process can load; return its step, 0 without one.

    Every process must call this. If one cannot load a checkpoint, all skip it.
    state: a `CheckpointState`.
    Errors: CheckpointError if a skipped one has changed the state and no other one can be restored.
    """
    changed = False
    # the main process' list counts: others may see an older state of a shared folder
    for checkpoint in all_gather(candidates(folder, inputs, config))[0]:
        # all processes read before one changes its state: a damaged file then costs nothing
        saved, failure = _try_in_all(_load, checkpoint, accelerator.process_index)
        if not failure:
            changed = True
            _, failure = _try_in_all(state.restore, *saved)
        if not failure:
            return checkpoint.step
        if accelerator.is_main_process:
            print(f"{checkpoint.folder} is damaged and passed over: {failure}", flush=True)
    if changed:
        raise CheckpointError(
            f"no checkpoint in {folder} can be loaded; remove it to start again from step 0"
        )
    return 0


def _load(checkpoint: Checkpoint, process: int) -> list[Any]:
    """Return the shared state and the one of a process."""
    # one process is enough to find damage: it makes all of them skip the checkpoint
    if process == 0 and BEST_FILE in checkpoint.files:
        check_hash(checkpoint.folder / BEST_FILE, checkpoint.files[BEST_FILE])
    names = (SHARED_FILE, PROCESS_FILE.format(process))
    return [read(checkpoint.folder / name, checkpoint.files[name]) for name in names]


def _try_in_all(function: Callable, *arguments: Any) -> tuple[Any, str | None]:
    """Return the function's result here, and the error of the first process that has one."""
    result = None
    message = None
    try:
        result = function(*arguments)
    except Exception as failure:
        # any kind, because a damaged file can raise any, and the others wait for this process
        message = f"{type(failure).__name__}: {first_line(failure) or type(failure).__name__}"
    return result, next((error for error in all_gather(message) if error), None)
