"""A preview of a run: base, source, machine, memory and time. It writes nothing that stays."""

import contextlib
import io
import tempfile
from pathlib import Path
from typing import Any

from ..config import DRAWN, STAGES, Prepare, Train
from ..config.validation import ParameterError, as_parameters
from ..run.environment import environment
from ..run.memory import MIB, MemoryPlan
from ..run.run import Run, RunError
from .paths import outputs, run_names
from .progress import format_duration
from .recipes import result_parameters

# seconds that the hub has to answer
HUB_TIMEOUT = 10.0
# the parts of a machine that decide how long a stage takes
HARDWARE = ("cpu", "gpus")


def preview_run(
    run: Run,
    recipe: str,
    stages: dict,
    reasons: dict[str, list[str]],
) -> dict[str, str]:
    """Return what is known of a run before it begins, by name, in words.

    stages: the config of each stage
    reasons: why each stage would be executed, [] if it is kept; see `plan.plan`

    Errors: ParameterError if the run would fail: the base, the source or the file of prompts is
    missing, or this machine cannot do what the parameters ask for.
    """
    from ..launch.errors import LaunchError
    from ..models import BaseError
    from ..prepare.encode.worker_process import WorkerError
    from ..prepare.examples import SourceError

    # heavy modules are imported inside the functions, so that other commands stay quick
    prepare = stages["prepare"]
    # refused here as a comparison would
    stages["compare"].file_prompts  # noqa: B018
    try:
        base = _find_base(prepare)
        preview = {"base": _describe_base(prepare, base)}
        for name in ("source", "prior_preservation_source"):
            if getattr(prepare, name):
                preview[name] = _describe_source(prepare, name)
        if base is not None and reasons["prepare"]:
            preview["memory to prepare"] = _plan_preparation(prepare, base)
        if prepare.captioner:
            preview["captioner"] = _describe_captioner(prepare.captioner)
        cache_is_current = not reasons["prepare"] and (run.cache / "cache.json").is_file()
        cache = run.cache if cache_is_current else None
        preview |= _preview_training(stages["train"], prepare, base, cache)
    except (BaseError, SourceError, WorkerError, LaunchError) as failure:
        raise ParameterError(str(failure)) from failure
    return preview | estimate_times(recipe, stages, reasons)


def _find_base(config: Prepare) -> Any:
    """Return the base, or None if it is on the hub and not here. Errors: BaseError."""
    from ..models.loading import check_hub_access, find_base
    from ..prepare import check_resolution

    if check_hub_access(config.base, config.revision, HUB_TIMEOUT):
        return None
    base = find_base(config.base, config.revision)
    # refused here as a preparation would
    check_resolution(base, config.resolution)
    return base


def _describe_captioner(name: str) -> str:
    """Return a captioner and where it is. Errors: SourceError for a folder that holds none."""
    from ..models.model_folder import is_on_hub
    from ..prepare.captioning.captioner import find_captioner

    # nothing is fetched for a preview
    return f"{name}, on the hub" if is_on_hub(name) else f"{name}, in {find_captioner(name)}"


def _describe_base(config: Prepare, base: Any) -> str:
    location = "on the hub" if base is None else f"{type(base).__name__} in {base.folder}"
    return f"{config.base}, {location}"


def _describe_source(config: Prepare, name: str) -> str:
    """Return a source and the number of its examples. Errors: SourceError."""
    from ..prepare.sources import DIFFUSIONDB, HUB, check_source_on_hub, open_source, source_options

    source = getattr(config, name)
    # 0: no limit
    limit = config.max_examples
    if name != "source":
        limit = config.prior_preservation_max_examples
    if source in DRAWN:
        return f"{source}, {limit} examples"
    if source.startswith((HUB, DIFFUSIONDB)):
        check_source_on_hub(source, HUB_TIMEOUT)
        return f"{source}, on the hub" + (f", {limit} examples at most" if limit else "")
    total = open_source(source, source_options(config, limit)).total()
    if total is None:
        limited = f"; {limit} at most" if limit else ""
        return f"{source}, which does not say how many examples it has{limited}"
    limited = f", of which {limit} at most are used" if 0 < limit < total else ""
    return f"{source}, {total} examples{limited}"


def _preview_training(
    config: Train,
    prepare: Prepare,
    base: Any,
    cache: Path | None,
) -> dict[str, str]:
    """Return processes, precision and memory. cache: one that is up to date, or None.

    Errors: LaunchError for what this machine cannot do, or has no memory for.
    """
    from ..launch.preflight import check_machine, process_count

    check_machine(config)
    preview = {"processes": str(process_count(config) * config.num_nodes)}
    if cache:
        return preview | _plan_memory(config, cache)
    if base is None:
        # its shapes are in files that are not fetched for a preview
        return preview | {"memory": "planned when the base is here"}
    from .planned_cache import write_planned_cache

    with tempfile.TemporaryDirectory(prefix="onepass-") as folder:
        write_planned_cache(Path(folder), base, prepare, config)
        return preview | _plan_memory(config, Path(folder))


def _plan_memory(config: Train, cache: Path) -> dict[str, str]:
    from ..launch.preflight import process_count
    from ..train.memory.estimate import check_fits, plan_memory
    from ..train.resolve import resolve_choices

    resolved = resolve_choices(config, cache)
    preview = {"mixed_precision": resolved.mixed_precision}
    if not config.batch_size:
        preview["batch_size"] = str(resolved.batch_size)
    config = resolved
    try:
        # the plan prints what a notebook shows; here it is part of the result
        with contextlib.redirect_stdout(io.StringIO()):
            plan = plan_memory(config, cache, process_count(config))
    except RuntimeError as failure:
        # a plan that cannot be made forbids no training
        return preview | {"memory": str(failure)}
    check_fits(plan, config, cache)
    return preview | {"memory": _describe_plan(plan)}


def _plan_preparation(config: Prepare, base: Any) -> str:
    """Return the memory of a preparation. Errors: WorkerError if this machine has too little."""
    from ..models.checks.headers import first_line
    from ..models.model_folder import is_on_hub
    from ..prepare.captioning.captioner import find_captioner
    from ..prepare.encode.memory import check_fits, plan_memory

    captioner = None
    # nothing is fetched for a preview
    if config.captioner and not is_on_hub(config.captioner):
        captioner = find_captioner(config.captioner)
    try:
        plan = plan_memory(config, base, captioner)
    except Exception as failure:
        # a plan that cannot be made forbids no preparation
        return f"it could not be planned: {first_line(failure)}"
    check_fits(plan, config, base, captioner)
    return _describe_plan(plan)


def _describe_plan(plan: MemoryPlan) -> str:
    memory = f"{plan.peak / MIB:.0f} MiB planned for a process"
    if plan.processes > 1:
        memory += f" of {plan.processes}, {plan.needed / MIB:.0f} MiB together"
    return f"{memory}; {plan.room / MIB:.0f} MiB are free"


def estimate_times(
    recipe: str,
    stages: dict,
    reasons: dict[str, list[str]],
) -> dict[str, str]:
    """Return how long each stage took in an earlier run of the recipe with equal parameters.

    Only runs on this machine count. A training may have had another number of steps. A stage that
    is kept, or that no run tells about, is left out.
    """
    hardware = _hardware(environment())
    pending = [stage for stage in STAGES if reasons[stage]]
    times = {}
    # names often count up (demo-1, demo-2): the last one is the likeliest to resemble this run
    for name in reversed(run_names()):
        try:
            record = Run(outputs() / name).read()
        except RunError:
            # a damaged run is another command's matter
            continue
        if record.get("asked", {}).get("recipe") != recipe:
            continue
        for stage in pending:
            earlier = record.get("stages", {}).get(stage, {})
            key = f"time of {stage}"
            if key in times or _hardware(earlier) != hardware:
                continue
            if seconds := _estimate_seconds(stage, stages[stage], earlier):
                times[key] = f"about {format_duration(seconds)}, as in the run {name}"
    return times


def _hardware(record: dict) -> list[Any]:
    machine = record.get("machine", {})
    return [machine.get(part) for part in HARDWARE]


def _estimate_seconds(stage: str, config: Any, earlier: dict) -> float | None:
    """Return the seconds a stage would take, judged by its earlier record, or None."""
    # a stage that reused results or resumed took less than it would from the start
    if earlier.get("status") != "done" or earlier.get("reused") or earlier.get("resumed_from"):
        return None
    before = result_parameters(earlier["parameters"])
    now = result_parameters(as_parameters(config))
    # the steps of epochs depend on the number of examples, which may be another one
    if stage != "train" or config.epochs:
        return earlier["seconds"] if before == now else None
    steps = before.get("steps")
    if not isinstance(steps, int) or steps < 1 or before != now | {"steps": steps}:
        return None
    # one that ended early says nothing of how long another number of steps takes
    if earlier.get("ended_early") and steps != config.steps:
        return None
    return earlier["seconds"] * config.steps / steps
