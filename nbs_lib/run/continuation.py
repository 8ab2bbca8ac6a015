"""Whether one training is the beginning of another, by their parameters: what a longer training can go on from."""

from collections.abc import Iterable
from typing import Any

from ..config import PLACE
from ..config.train import LATEST, NONE

SAVING_PARAMETERS = (
    "checkpointing_steps",
    "checkpoint_minutes",
    "checkpoints_total_limit",
    "log_every",
    "tensorboard",
)
"""Parameters that say when a training saves and what it notes; none of them changes a weight."""
LENGTH_PARAMETERS = ("steps", "epochs")
LR_PARAMETERS = ("lr_scheduler", "lr_warmup_steps", "learning_rate", "lr_num_cycles", "lr_power")
"""Parameters that say the course of the learning rate, which a training may change on the way where it is asked to."""
RESUME_PARAMETER = "resume_from_checkpoint"


def fixed_parameters(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters that the first steps of a training depend on, up to any checkpoint.

    With a constant schedule these do not depend on how many steps follow; with any other the learning rate does.
    """
    constant = parameters.get("lr_scheduler") == "constant"
    left_out = {*PLACE, *SAVING_PARAMETERS, "epochs", *(("steps",) if constant else ())}
    told = {name: value for name, value in parameters.items() if name not in left_out}
    return told | {
        "validation_steps": bool(told.get("validation_steps"))
    }  # whether is looked decides what is held out


def differing_parameters(
    before: dict[str, Any], now: dict[str, Any], among: Iterable[str] | None = None
) -> list[str]:
    """Return the differences of two courses in words. among: the names that count, None for all."""
    then, there = fixed_parameters(before), fixed_parameters(now)
    names = [
        name for name in there if then.get(name) != there[name] and (among is None or name in among)
    ]
    return [f"{name} was {before.get(name)!r} and is {now[name]!r}" for name in names]


def not_allowed(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return the differences, in words, for which a training cannot go on from a named checkpoint of another one."""
    return differing_parameters(
        before,
        now,
        fixed_parameters(now).keys() - {*LENGTH_PARAMETERS, *LR_PARAMETERS, RESUME_PARAMETER},
    )


def beginning(before: dict[str, Any], now: dict[str, Any], step: int) -> str:
    """Say where a training begins. before: the parameters of the one that has a checkpoint of `step`; 0 where there is none."""
    chosen = now.get(RESUME_PARAMETER, LATEST)
    if chosen not in (LATEST, NONE, before.get(RESUME_PARAMETER)):
        return f"goes on from {chosen}"
    if not differing_parameters(before, now) and 0 < step <= now["steps"]:
        return f"goes on from step {step}"
    if chosen == LATEST and 0 < step <= now["steps"] and not not_allowed(before, now):
        return (
            f"begins at step 0, because the learning rate of its first {step} steps is another one with schedule "
            f"{now['lr_scheduler']!r} ({'; '.join(differing_parameters(before, now))}); with {RESUME_PARAMETER} = {checkpoint_name(step)!r} it "
            "goes on from there"
        )
    return "begins at step 0"


def checkpoint_name(step: int) -> str:
    """Return the name of a checkpoint's folder."""
    return f"step-{step:07d}"
