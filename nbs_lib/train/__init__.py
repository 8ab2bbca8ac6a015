"""The room behind `2_train.ipynb`: a cache in, an adapter out.

loop           the training function that every process runs; read it first
objectives     the losses that can be learned
student        the denoiser that learns, and the teacher inside it
data/          the cache, as batches
setup          the parts of a training
resolve        parameters that the machine and the cache decide
networks       the denoiser with its adapters, and its teacher
lora_cast      the adapter's weights in passes of low precision, and the loss scale of fp16
compilation    the denoiser compiled by torch.compile
accelerator    the Accelerator of a process
zero           DeepSpeed's settings, and whole weights from their parts
checkpoint/    checkpoints: written, verified, resumed; the best weights
validation     held-out loss, and pictures during the training
sampling       latents from noise, by the student or by its teacher
finish/        the end: the dial measured, the weights saved, loaded back and described
memory/        the memory plan
look/          the parts of a training, and what it does to a few examples, for the notebook
monitor/       metrics, usage, phases, and their plots
"""

import time
from dataclasses import asdict, replace
from pathlib import Path

from accelerate.utils import patch_environment

from ..config import Train
from ..launch import launcher
from ..launch.errors import interrupted_error
from ..launch.preflight import check_machine, process_count
from ..launch.waiting import await_end, await_start
from ..models._imports import import_deepspeed
from ..models.components import weight_files
from ..models.loading import pipeline_family
from ..models.lora.metadata import LORA_FILE
from ..run.continuation import (
    LENGTH_PARAMETERS,
    LR_PARAMETERS,
    RESUME_PARAMETER,
    changed_parameters,
    describe_start,
)
from ..run.run import Run
from .checkpoint.checkpoint import Checkpoint, Inputs
from .checkpoint.resume import (
    candidates,
    checkpoint_inputs,
    newest,
    refuse_first_format,
    refuse_others,
)
from .data.cache_reader import check_cache
from .finish.result import TrainingResult
from .loop import training_function
from .memory.estimate import MemoryPlan, check_fits, plan_memory
from .monitor.metrics import start_metrics
from .monitor.plots import draw_curves
from .monitor.usage import UsageMonitor
from .resolve import CHOICES, resolve_choices

__all__ = ["TrainingResult", "train"]


def train(config: Train) -> TrainingResult:
    """Train an objective, resuming from the newest checkpoint of the same parameters and inputs.

    Writes adapter/ or model/, metrics.jsonl, usage.jsonl, validation/ and their plots into the run.
    Errors: FileNotFoundError without a prepared cache; DataError for a damaged one, or one without
    the answers asked for; LaunchError if the processes cannot be as asked for, or one of them
    fails; CheckpointError if an unfinished training of other parameters would be lost.
    """
    run = Run(config.run)
    if config.node_rank:
        return _train_with_host_0(config, run)
    run.require("prepare")
    run.check_replaceable(config)
    check_machine(config)
    check_cache(run.cache, config)
    # the record keeps the parameters as given, so that `onepass run` compares them the next time
    given_config = config
    config = _resolve(config, run)
    # each process has its part of the optimizer, on however many hosts they are
    all_hosts = replace(config, num_processes=process_count(config) * config.num_nodes)
    inputs = checkpoint_inputs(run.inputs(all_hosts), all_hosts)
    _import_deepspeed(config)
    plan = _plan(config, run)
    _check_checkpoints(run, given_config, inputs, all_hosts)
    checkpoint = next(iter(candidates(run.checkpoints, inputs, all_hosts, report=print)), None)
    other_rate = _report_start(run, checkpoint, all_hosts)
    resolved = {name: getattr(config, name) for name in CHOICES}
    with run.stage(given_config) as record:
        run.update_stage("train", resolved=resolved, **other_rate)
        # before the launch, or the live curve would be that of the training before
        start_metrics(run, checkpoint.step if checkpoint else 0)
        with UsageMonitor(run, resumed=checkpoint is not None) as monitor:
            launched = _launch(config, run, inputs)
        draw_curves(run, launched["weights_step"])
        launched["memory"] = {
            "planned_mib": plan.as_mib() if plan else None,
            "measured_mib": launched.pop("measured_mib"),
        }
        record.update(launched, **other_rate, watch_share=round(monitor.share, 5))
        record["outputs"] = [str(trained_weights(run, config).relative_to(run.folder))]
    return _result(config, run, launched, monitor.seconds)


def trained_weights(run: Run, config: Train) -> Path:
    """Return the file of the trained weights."""
    if config.method == "full":
        family = pipeline_family(run.model, run.name)
        [file] = weight_files(run.model, family.denoiser_part)
        return file
    return run.adapter / LORA_FILE


def _resolve(config: Train, run: Run) -> Train:
    """Return the parameters with nothing left to choose, and print the choices."""
    resolved = resolve_choices(config, run.cache)
    if config.epochs:
        print(f"{config.epochs} epoch{'s' * (config.epochs > 1)}: {resolved.steps} steps")
    if not config.batch_size:
        print(
            f"batch_size: {resolved.batch_size}, the largest that the memory plan allows; "
            f"learning_rate stays {config.learning_rate:g}"
        )
    if config.mixed_precision == "auto":
        print(f"mixed_precision: {resolved.mixed_precision}")
    if resolved.deepspeed != config.deepspeed:
        print("DeepSpeed is not installed: plain data-parallel training (`pip install deepspeed`)")
    return resolved


def _import_deepspeed(config: Train):
    """Import DeepSpeed once, before the processes are forked, which then share its memory."""
    if config.deepspeed:
        with patch_environment(**launcher.engine_environment()):
            import_deepspeed()


def _plan(config: Train, run: Run) -> MemoryPlan | None:
    """Print and return the memory plan; None if none can be made. Errors: LaunchError."""
    try:
        plan = plan_memory(config, run.cache, process_count(config))
    except RuntimeError as failure:
        # no reason not to train
        print(failure)
        return None
    check_fits(plan, config, run.cache)
    print(plan)
    return plan


def _check_checkpoints(run: Run, config: Train, inputs: Inputs, all_hosts: Train):
    """Check that no unfinished training is lost. config: as given. Errors: CheckpointError."""
    record = run.stage_record("train")
    if record.get("status") != "done":
        refuse_first_format(run.checkpoints, inputs, all_hosts)
        # an equal training has begun before, so this refusal did not stop it
        if record.get("inputs") != run.inputs(config):
            refuse_others(run.checkpoints, inputs, all_hosts)


def _report_start(run: Run, checkpoint: Checkpoint | None, config: Train) -> dict[str, str]:
    """Print where the training starts; return what is recorded of its earlier learning rate."""
    parameters = asdict(config)
    if not checkpoint:
        before, step = newest(run.checkpoints)
        if step:
            print(describe_start(before, parameters, step))
        return {}
    print(f"goes on from step {checkpoint.step} of {config.steps}")
    changeable = (*LENGTH_PARAMETERS, *LR_PARAMETERS)
    if differences := changed_parameters(checkpoint.parameters, parameters, changeable):
        message = (
            f"steps 1 to {checkpoint.step} had another course of the learning rate: "
            f"{'; '.join(differences)}"
        )
        print(message)
        return {"other_rate": message}
    record = run.stage_record("train")
    resumed_before = record.get("parameters", {}).get(RESUME_PARAMETER)
    if "other_rate" in record and resumed_before == parameters[RESUME_PARAMETER]:
        return {"other_rate": record["other_rate"]}
    return {}


def _train_with_host_0(config: Train, run: Run) -> TrainingResult:
    """Train on a further host, and wait for host 0, which keeps the record."""
    start = time.perf_counter()
    check_machine(config)
    with run.exclusive(f".host-{config.node_rank}.lock"):
        # it may prepare first
        await_start(run, "train")
        config = _resolve(config, run)
        _import_deepspeed(config)
        _launch(config, run, {})
    record = await_end(run, "train")
    return _result(config, run, record, time.perf_counter() - start)


def _launch(config: Train, run: Run, inputs: Inputs) -> dict:
    """Train in every process; return what the main one has written.

    Errors: LaunchError; InterruptedTraining, a KeyboardInterrupt.
    """
    try:
        return launcher.launch(training_function, config, run, inputs)
    except KeyboardInterrupt:
        all_hosts = replace(config, num_processes=process_count(config) * config.num_nodes)
        # only a checkpoint of this training: one of another would not be resumed
        resumable = candidates(run.checkpoints, inputs, all_hosts)
        raise interrupted_error(resumable[0].step if resumable else None) from None


def _result(config: Train, run: Run, launched: dict, seconds: float) -> TrainingResult:
    weights = run.model if config.method == "full" else run.adapter
    names = ("loss", "held_out_loss", "resumed_from")
    values = {name: launched[name] for name in names}
    return TrainingResult(weights=weights, launched=launched, seconds=seconds, **values)
