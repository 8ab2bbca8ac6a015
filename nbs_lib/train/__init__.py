"""The room behind `2_train.ipynb`: a cache in, an adapter out.

objectives  what can be learned
student     the UNet that learns, and the teacher that it has in it
data        batches from the cache, a pure function of the step; batch: what is in one
parts       what a training is made of
resolve     the parameters that the machine and the cache decide
loop        the training function that every process runs
log         metrics.jsonl and the progress line
validate    held-out loss, and pictures on the way
finish      weights saved, loaded back and described
checkpoint  saved and resumed states; state: what is in one; plain: its files
launch      the one module that starts processes; starter and worker: the two sides of those started afresh
rendezvous  the address on which they meet
guard       what a training needs of its machine and its kernel
engine      the Accelerator of a process, and whole weights out of it
hosts       several hosts: that they mean the same training, and are still there
stop        what the processes agree on after each step: to save, to end
failure     what ended a training, in one sentence
stages      what each process is doing, and since when
meter       CPU, memory and GPUs at a moment
watch       usage.jsonl, and the live loss curve
memory      what a training needs of it, planned by parts; rehearsal: a step on tensors without content; weightless: these
curves      loss.png and usage.png
card        the model card
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from accelerate.utils import patch_environment

from ..config import Train
from ..files import from_project
from ..run.continuation import (
    LENGTH_PARAMETERS,
    LR_PARAMETERS,
    RESUME_PARAMETER,
    changed_parameters,
    describe_start,
)
from ..run.run import Run
from .checkpoint.checkpoint import (
    Checkpoint,
    candidates,
    inputs_of,
    newest,
    refuse_earlier,
    refuse_others,
)
from .dataset import check_cache
from .errors import LONGEST, LaunchError
from .launch.launcher import engine_environment, launch
from .launch.preflight import check_machine, process_count
from .launch.resolve import CHOICES, resolve_choices
from .memory.estimate import MemoryPlan, check_fits, describe_peaks, plan_memory
from .model_card import launched_as
from .monitor.metrics import start_metrics
from .monitor.plots import draw_curves
from .monitor.usage import UsageMonitor


@dataclass(frozen=True)
class TrainingResult:
    """A finished training: the folder of what was learned, the mean of the last tenth of the losses that were logged, the
    held-out loss first and last, what it ran on and what it took."""

    weights: Path
    loss: float
    held_out_loss: list[float] | None
    launched: dict
    seconds: float
    resumed_from: int

    @property
    def place(self) -> str:
        """The folder of what was learned, from the project."""
        return from_project(self.weights)

    @property
    def engine(self) -> str:
        """What trained, on how many processes, in words."""
        return launched_as(self.launched)

    @property
    def memory(self) -> str:
        """A process at its peak, planned and measured, in words."""
        return describe_peaks(**self.launched["memory"])


def train(config: Train) -> TrainingResult:
    """Learn an objective, resuming from the newest checkpoint of the same parameters and inputs.

    Writes adapter/ or model/, metrics.jsonl, usage.jsonl, validation/ and the pictures of these into the run.
    Errors: FileNotFoundError without a prepared cache; DataError for a damaged one, or one without the answers asked for;
    LaunchError where the processes cannot be what was asked for, or one of them fails; CheckpointError where an unfinished
    training of other parameters would be lost.
    """
    run = Run(config.run)
    if config.node_rank:
        return _help(config, run)
    run.require("prepare")
    run.check_replaceable(config)
    before = run.stage_record("train")
    check_machine(config)
    check_cache(run.cache, config)
    asked, config = config, _resolved(config, run)
    # how many processes there are decides what each has in its optimizer; on how many hosts does not
    whole = replace(config, num_processes=process_count(config) * config.num_nodes)
    inputs = inputs_of(run.inputs(whole), whole)
    training_function = _load(config)
    planned = _planned(config, run)
    if before.get("status") != "done":
        refuse_earlier(run.checkpoints, inputs, whole)
        if before.get("inputs") != run.inputs(asked):  # else it was begun like this already
            refuse_others(run.checkpoints, inputs, whole)
    resumed = next(iter(candidates(run.checkpoints, inputs, whole, say=print)), None)
    other_rate = _said_beginning(run, resumed, whole)
    with run.stage(
        asked
    ) as told:  # which is what `onepass run` compares with what is asked the next time
        run.update_stage(
            "train", resolved={name: getattr(config, name) for name in CHOICES}, **other_rate
        )
        start_metrics(
            run, resumed.step if resumed else 0
        )  # or the live curve would be that of the training before
        with UsageMonitor(run, resumed is not None) as watch:
            launched = launch(training_function, config, run, inputs)
        draw_curves(run)
        launched["memory"] = {
            "planned_mib": planned.told() if planned else None,
            "measured_mib": launched.pop("measured_mib"),
        }
        told |= launched | other_rate | {"watch_share": round(watch.share, 5)}
        told["outputs"] = [str(trained_weights(run, config).relative_to(run.folder))]
    return _trained(config, run, launched, watch.seconds)


def _said_beginning(run: Run, resumed: Checkpoint | None, config: Train) -> dict[str, str]:
    """Print where the training begins; return what is recorded of a learning rate that took another course before."""
    before = run.stage_record("train")
    then, step = newest(run.checkpoints)
    if not resumed:
        if step:
            print(describe_start(then, asdict(config), step))
        return {}
    print(f"goes on from step {resumed.step} of {config.steps}")
    if other := changed_parameters(
        resumed.parameters, asdict(config), (*LENGTH_PARAMETERS, *LR_PARAMETERS)
    ):
        said = (
            f"steps 1 to {resumed.step} had another course of the learning rate: {'; '.join(other)}"
        )
        print(said)
        return {"other_rate": said}
    same = before.get("parameters", {}).get(RESUME_PARAMETER) == getattr(config, RESUME_PARAMETER)
    return {name: before[name] for name in ("other_rate",) if same and name in before}


def _resolved(config: Train, run: Run) -> Train:
    """The parameters with nothing left to choose; what was chosen is printed."""
    chosen = resolve_choices(config, run.cache)
    if config.epochs:
        print(f"{config.epochs} epoch{'s' * (config.epochs > 1)}: {chosen.steps} steps")
    if config.mixed_precision == "auto":
        print(f"mixed_precision: {chosen.mixed_precision}")
    return chosen


def _load(config: Train) -> Callable:
    """The training function. The libraries that it comes with are imported here, once for the rehearsal and all processes that
    are forked, which have them in memory together."""
    with patch_environment(**engine_environment()):
        from .loop import training_function

        if config.deepspeed:
            import deepspeed  # noqa: F401
    return training_function


def _planned(config: Train, run: Run) -> MemoryPlan | None:
    """The plan of its memory, printed; None where none can be made, which is no reason not to train. Errors: LaunchError."""
    try:
        planned = plan_memory(config, run.cache, process_count(config))
    except RuntimeError as failure:
        print(failure)
        return None
    check_fits(planned, config, run.cache)
    print(planned)
    return planned


def _help(config: Train, run: Run) -> TrainingResult:
    """Train with host 0, which keeps the record, and wait for it."""
    start = time.perf_counter()
    check_machine(config)
    with run.exclusive(f".host-{config.node_rank}.lock"):
        _await_host_0(run)
        config = _resolved(config, run)
        launch(_load(config), config, run, {})
    while (record := run.stage_record("train")).get("status") == "running":
        time.sleep(0.5)
    if record.get("status") != "done":
        raise LaunchError(
            f"host 0 did not come to its end: {record.get('error', 'it was interrupted')}"
        )
    return _trained(config, run, record, time.perf_counter() - start)


def _await_host_0(run: Run):
    """Wait until host 0 trains, which may prepare before. Errors: LaunchError where it ends without coming to that."""
    before, end = run.read(), time.monotonic() + LONGEST.total_seconds()
    while (record := run.read()).get("stages", {}).get("train", {}).get("status") != "running":
        if record != before and record.get("status") in ("failed", "interrupted"):
            raise LaunchError(f"host 0 did not come to its training; {run.log} says why")
        if time.monotonic() > end:
            raise LaunchError(f"host 0 was not met in {LONGEST}; start the same training there")
        time.sleep(0.5)


def _trained(config: Train, run: Run, launched: dict, seconds: float) -> TrainingResult:
    folder = run.model if config.method == "full" else run.adapter
    return TrainingResult(
        folder,
        launched["loss"],
        launched["held_out_loss"],
        launched,
        seconds,
        launched["resumed_from"],
    )


def trained_weights(run: Run, config: Train) -> Path:
    """The file of what a training learned."""
    if config.method == "full":
        return run.model / "unet" / "diffusion_pytorch_model.safetensors"
    return run.adapter / "pytorch_lora_weights.safetensors"
