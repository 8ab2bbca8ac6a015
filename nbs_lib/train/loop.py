"""The training function: what every process runs, from the Accelerator to the saved weights."""

from dataclasses import replace

from ..config import Train
from ..models import _imports as libraries  # noqa: F401  (before what imports them)
from ..run.run import Run
from .accelerator import close_trackers, new_accelerator
from .checkpoint.checkpoint import resume, save_checkpoint
from .checkpoint.state import State
from .finalize import finalize
from .launch.graceful_stop import StopCoordinator, stop_error
from .launch.multinode import HostLiveness, check_agreement
from .monitor.metrics import MetricsLog
from .monitor.phases import mark_phase
from .objectives import OBJECTIVES
from .setup import build_training_state, learning_rate
from .validation import Validation


def training_function(config: Train, run: Run, inputs: dict[str, str]):
    """Train; all results go through the run's files. To be called by `launch` in each process.

    Errors: StoppedError where a process was asked to end.
    """
    mark_phase(run, "build")
    pause = StopCoordinator(config)
    accelerator = new_accelerator(config, run.folder)
    hosts = HostLiveness(config, run, accelerator)
    inputs = check_agreement(config, run, inputs, accelerator)
    parts, loss_of = (
        build_training_state(config, run, accelerator),
        OBJECTIVES[config.objective].loss,
    )
    whole = replace(config, num_processes=accelerator.num_processes)  # on all hosts
    state = State(parts, accelerator)
    first = resume(accelerator, state, run.checkpoints, inputs, whole)
    log, validation = (
        MetricsLog(run, config, first, accelerator),
        Validation(run, config, parts, accelerator, first),
    )
    if not first and validation.due(0):
        validation.look(0, log)
    pause.begin(first)
    mark_phase(run, "train")
    for step in range(first, config.steps):
        for group in parts.optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        for part in range(config.gradient_accumulation_steps):
            share = part * accelerator.num_processes + accelerator.process_index
            batch = parts.examples.batch(
                step, share, accelerator.num_processes * config.gradient_accumulation_steps
            ).to(accelerator.device)
            with accelerator.accumulate(parts.engine):
                losses = loss_of(parts.engine, parts.student, batch, config)
                log.losses(
                    losses, batch.t, lambda batch=batch: parts.examples.ids(batch.example), step + 1
                )
                if part == config.gradient_accumulation_steps - 1:
                    pause.ask(step + 1, log.seen)
                accelerator.backward(
                    (losses * batch.weight).mean()
                )  # DeepSpeed's engine steps the optimizer in it
                norm = (
                    accelerator.clip_grad_norm_(parts.parameters, config.max_grad_norm)
                    if accelerator.sync_gradients
                    else None
                )
                parts.optimizer.step()
                parts.optimizer.zero_grad()
        parts.follow()
        save, stop, seen = pause.agreed(step + 1)
        log.step(step + 1, learning_rate(config, step), norm, seen)
        if validation.due(step + 1):
            validation.look(step + 1, log)
            log.rest()
        if save:
            mark_phase(run, "checkpoint")
            with pause.saving():
                save_checkpoint(accelerator, state, run.checkpoints, step + 1, inputs, whole)
            log.rest()
        if stop:
            raise stop_error(step + 1)
    mark_phase(run, "finish")
    finalize(config, run, parts, log, accelerator)
    accelerator.wait_for_everyone()
    hosts.part()
    pause.over()
    close_trackers(accelerator)
