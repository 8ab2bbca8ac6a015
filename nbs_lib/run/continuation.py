"""Comparison of two trainings' parameters: may one resume from a checkpoint of the other."""

from collections.abc import Iterable
from typing import Any

from ..config import PLACE
from ..config.training import LATEST, NONE

# When a training saves and logs; none of them changes a weight.
SAVING_PARAMETERS = (
    "checkpointing_steps",
    "checkpoint_minutes",
    "checkpoints_total_limit",
    "log_every",
    "trackers",
)
# Up to which step it trains, not what it learns in each of them.
STOPPING_PARAMETERS = ("early_stopping_patience", "epochs")
LENGTH_PARAMETERS = ("steps", "epochs")
# The course of the learning rate, which a resumed training may change on request.
LR_PARAMETERS = ("lr_scheduler", "lr_warmup_steps", "learning_rate", "lr_num_cycles", "lr_power")
RESUME_PARAMETER = "resume_from_checkpoint"


def fixed_parameters(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters that a training's first steps depend on, up to any checkpoint."""
    # epochs are resolved into steps before a training starts
    ignored = {*PLACE, *SAVING_PARAMETERS, *STOPPING_PARAMETERS}
    # with any other schedule the learning rate of each step depends on the number of steps
    if parameters.get("lr_scheduler") == "constant":
        ignored.add("steps")
    fixed = {name: value for name, value in parameters.items() if name not in ignored}
    # its interval changes no step, but examples are held out only if there is a validation
    return fixed | {"validation_steps": bool(fixed.get("validation_steps"))}


def changed_parameters(
    before: dict[str, Any], now: dict[str, Any], among: Iterable[str] | None = None
) -> list[str]:
    """Return the differences of two trainings' fixed parameters, one phrase each.

    among: names that count; None for all
    """
    old = fixed_parameters(before)
    new = fixed_parameters(now)
    names = [name for name in new if old.get(name) != new[name]]
    if among is not None:
        names = [name for name in names if name in among]
    return [f"{name} was {before.get(name)!r} and is {now[name]!r}" for name in names]


def resume_conflicts(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return the differences that forbid to resume from a named checkpoint of another training."""
    changeable = {*LENGTH_PARAMETERS, *LR_PARAMETERS, RESUME_PARAMETER}
    return changed_parameters(before, now, fixed_parameters(now).keys() - changeable)


def describe_start(before: dict[str, Any], now: dict[str, Any], step: int) -> str:
    """Return a phrase that says where a training begins.

    before: parameters of the training that wrote the newest checkpoint
    step: of that checkpoint; 0 without one
    """
    # a named checkpoint is checked when it is loaded
    checkpoint = now.get(RESUME_PARAMETER, LATEST)
    if checkpoint not in (LATEST, NONE, before.get(RESUME_PARAMETER)):
        return f"goes on from {checkpoint}"
    usable = 0 < step <= now["steps"]
    # the newest checkpoint is found without a name only for the same training
    if usable and not changed_parameters(before, now):
        return f"goes on from step {step}"
    if usable and checkpoint == LATEST and not resume_conflicts(before, now):
        changes = "; ".join(changed_parameters(before, now))
        return (
            f"begins at step 0, because the learning rate of its first {step} steps is another one "
            f"with schedule {now['lr_scheduler']!r} ({changes}); "
            f"with {RESUME_PARAMETER} = {checkpoint_name(step)!r} it goes on from there"
        )
    return "begins at step 0"


def checkpoint_name(step: int) -> str:
    """Return the name of a checkpoint's folder."""
    # with leading zeros, so that the order of names is the order of steps
    return f"step-{step:07d}"
