"""What can be known of a run before it begins: its base and source, the machine, memory and time. Nothing is kept of it."""

import contextlib
import io
import tempfile
from pathlib import Path
from typing import Any

from ..config import DRAWN, PLACE, STAGES, Prepare, Train
from ..config.validation import ParameterError, as_parameters
from ..run.environment import environment
from ..run.run import Run, RunError
from .paths import outputs, run_names
from .progress import format_duration

PATIENCE = 10.0
"""Seconds that the hub is given to answer."""
HERE = ("cpu", "gpus")
"""Of a machine what a stage's seconds depend on most."""


def preview_run(
    run: Run, recipe: str, stages: dict[str, Any], why: dict[str, list[str]]
) -> dict[str, str]:
    """Return what is known of a run before it begins, in words.

    Errors: ParameterError where it could not be done: a base or a source that is not there, or a machine that cannot do what is
    asked for.
    """
    from ..models import BaseError
    from ..prepare.examples import SourceError
    from ..train.errors import LaunchError

    prepare, train = stages["prepare"], stages["train"]
    try:
        base = _base(prepare)
        told = {"base": _named(prepare, base)}
        told |= {
            name: _source(prepare, name)
            for name in ("source", "prior_preservation_source")
            if getattr(prepare, name)
        }
        told |= _machine(train, run, base, prepare, kept=not why["prepare"])
    except (BaseError, SourceError, LaunchError) as failure:
        raise ParameterError(str(failure)) from failure
    return told | _times(recipe, stages, why)


def _base(config: Prepare) -> Any:
    """Return the base, or None where it is on the hub, which answers for it. Errors: BaseError."""
    from ..models.loading import check_hub_access, find_base
    from ..prepare import check_resolution

    if check_hub_access(config.base, config.revision, PATIENCE):
        return None
    base = find_base(config.base, config.revision)
    check_resolution(base, config.resolution)
    return base


def _named(config: Prepare, base: Any) -> str:
    return (
        f"{config.base}, on the hub"
        if base is None
        else f"{config.base}, {type(base).__name__} in {base.folder}"
    )


def _source(config: Prepare, name: str) -> str:
    """Return how many examples there are. Errors: SourceError."""
    from ..prepare.sources import DIFFUSIONDB, HUB, check_source_on_hub, open_source, source_options

    source, most = (
        getattr(config, name),
        config.max_examples if name == "source" else config.prior_preservation_max_examples,
    )
    if source.startswith((HUB, DIFFUSIONDB)):
        check_source_on_hub(source, PATIENCE)
        return f"{source}, on the hub" + (f", {most} examples at most" if most else "")
    if source in DRAWN:
        return f"{source}, {most} examples"
    there = open_source(source, source_options(config, most)).total()
    if there is None:
        return f"{source}, which does not say how many examples it has" + (
            f"; {most} at most" if most else ""
        )
    return f"{source}, {there} examples" + (
        f", of which {most} at most are taken" if most and most < there else ""
    )


def _machine(config: Train, run: Run, base: Any, prepare: Prepare, kept: bool) -> dict[str, str]:
    """Return processes, precision and memory. Errors: LaunchError for what this machine cannot do, or has no memory for."""
    from ..train.launch.preflight import check_machine, process_count

    check_machine(config)
    told = {"processes": str(process_count(config) * config.num_nodes)}
    if kept and (run.cache / "cache.json").is_file():
        return told | _planned(config, run.cache)
    if base is None:
        return told | {"memory": "planned when the base is here"}
    from .planned_cache import write_planned_cache

    with tempfile.TemporaryDirectory(prefix="onepass-") as folder:
        write_planned_cache(Path(folder), base, prepare, config)
        return told | _planned(config, Path(folder))


def _planned(config: Train, cache: Path) -> dict[str, str]:
    from ..train.launch.preflight import process_count
    from ..train.launch.resolve import resolve_choices
    from ..train.memory.estimate import MIB, check_fits, plan_memory

    config = resolve_choices(config, cache)
    told = {"mixed_precision": config.mixed_precision}
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            planned = plan_memory(config, cache, process_count(config))
    except RuntimeError as failure:
        return told | {"memory": str(failure)}
    check_fits(planned, config, cache)
    several = (
        f" of {planned.processes}, {planned.needed / MIB:.0f} MiB together"
        if planned.processes > 1
        else ""
    )
    return told | {
        "memory": f"{planned.peak / MIB:.0f} MiB planned for a process{several}; {planned.room / MIB:.0f} MiB are free"
    }


def _times(recipe: str, stages: dict[str, Any], why: dict[str, list[str]]) -> dict[str, str]:
    """Return how long each stage that is to be done took in another run: of the recipe, on this machine, as it is asked for.

    Of a training the number of steps may be another one. Nothing is said where no run tells.
    """
    machine, found = environment()["machine"], {}
    here = {name: machine[name] for name in HERE}
    for name in reversed(run_names()):
        try:
            record = Run(outputs() / name).read()
        except RunError:
            continue
        if record.get("asked", {}).get("recipe") != recipe:
            continue
        for stage, config in stages.items():
            known = record.get("stages", {}).get(stage, {})
            same = {part: known.get("machine", {}).get(part) for part in HERE} == here
            if (
                why[stage]
                and stage not in found
                and same
                and (seconds := _seconds(stage, config, known))
            ):
                found[stage] = f"about {format_duration(seconds)}, as in the run {name}"
    return {f"time of {stage}": found[stage] for stage in STAGES if stage in found}


def _seconds(stage: str, config: Any, known: dict[str, Any]) -> float | None:
    """Return the seconds that a stage would take by what it took another time; None where that says nothing."""
    if known.get("status") != "done" or known.get("reused") or known.get("resumed_from"):
        return None
    then, now = (
        {n: v for n, v in each.items() if n not in PLACE}
        for each in (known["parameters"], as_parameters(config))
    )
    if stage != "train" or config.epochs:
        return known["seconds"] if then == now else None
    steps = then.get("steps")
    if not isinstance(steps, int) or steps < 1 or then != {**now, "steps": steps}:
        return None
    return known["seconds"] * config.steps / steps
