"""The training function, which every process runs: from the Accelerator to the saved weights."""

from dataclasses import replace
from functools import partial

from ..config import Train
from ..launch.graceful_stop import StopCoordinator, stop_error
from ..launch.multinode import HostLiveness, check_agreement
from ..models import _imports as libraries  # noqa: F401  (before what imports them)
from ..run.run import Run
from .accelerator import clip_gradients, new_accelerator
from .checkpoint.best import BestWeights
from .checkpoint.checkpoint import Inputs, save_checkpoint
from .checkpoint.resume import resume
from .checkpoint.state import CheckpointState
from .compilation import begin_pass
from .finish.finalize import finalize
from .monitor.metrics import MetricsLog
from .monitor.phases import mark_phase
from .objectives import OBJECTIVES
from .setup import TrainingState, build_training_state, learning_rate
from .validation import Validation


def training_function(config: Train, run: Run, inputs: Inputs):
    """Train in one process; `launch` calls it in each. All results go through the run's files.

    Errors: StoppedError if a process was asked to end; a checkpoint is saved then.
    """
    mark_phase(run, "build")
    # first, because its thread takes the signals only if no other thread exists yet
    stop = StopCoordinator(config)
    accelerator = new_accelerator(config, run.folder)
    liveness = HostLiveness(config, run, accelerator)
    inputs = check_agreement(config, run, inputs, accelerator)
    training = build_training_state(config, run, accelerator)
    best = BestWeights(config, run, training, accelerator)
    state = CheckpointState(training, best, accelerator)
    # a checkpoint belongs to the process count of all hosts together
    all_hosts = replace(config, num_processes=accelerator.num_processes)
    first = resume(accelerator, state, run.checkpoints, inputs, all_hosts)
    best.begin(first)
    log = MetricsLog(run, config, first, accelerator)
    validation = Validation(run, config, training, best, accelerator, first)
    if validation.missing(first):
        validation.validate(first, log)

    stop.begin(first)
    mark_phase(run, "train")
    step = first
    # a training that ended early may be resumed at its end
    while step < config.steps and not best.exhausted:
        step += 1
        rate = learning_rate(config, step - 1)
        grad_norm = train_step(step, rate, config, training, accelerator, log, stop)
        save, end, totals = stop.decision(step)
        log.log_step(step, rate, grad_norm, totals)
        if validation.due(step):
            # a loss that is not finite must not become the best weights, nor a checkpoint
            log.settle()
            validation.validate(step, log)
            log.resume_training()
        # no vote knows that this step is the last one
        if save or (best.exhausted and stop.saves):
            mark_phase(run, "checkpoint")
            log.settle()
            with stop.saving():
                save_checkpoint(accelerator, state, run.checkpoints, step, inputs, all_hosts)
            log.resume_training()
        if end:
            log.trackers.finish()
            raise stop_error(step)

    mark_phase(run, "finish")
    log.settle()
    finalize(config, run, training, best, step, log, accelerator)
    # the main process still verifies the adapter
    accelerator.wait_for_everyone()
    liveness.finish()
    stop.finish()
    log.trackers.finish()


def train_step(
    step: int,
    rate: float,
    config: Train,
    training: TrainingState,
    accelerator,
    log: MetricsLog,
    stop: StopCoordinator,
):
    """Take an optimizer step in `gradient_accumulation_steps` passes; return the gradient norm.

    step: counted from 1.
    rate: the learning rate.
    """
    loss_function = OBJECTIVES[config.objective].loss
    passes = config.gradient_accumulation_steps
    for group in training.optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]
    grad_norm = None
    for index in range(passes):
        batch = training.batches.batch(step - 1, index)
        begin_pass(config)
        with accelerator.accumulate(training.engine):
            # the engine's pass has gradients; the student's own, and the teacher's, have none
            losses = loss_function(training.engine, training.student, batch, config)
            # before the backward pass: on a CPU no loss that is not finite reaches the optimizer
            log.add_losses(losses, batch.t, partial(training.examples.ids, batch.example), step)
            if index == passes - 1:
                # the vote travels while the backward pass computes
                stop.start_vote(step, log.totals)
            # DeepSpeed's engine steps the optimizer in `backward`
            accelerator.backward((losses * batch.weight).mean())
            # the GPU computes still
            training.batches.load_next(step - 1, index)
            if accelerator.sync_gradients:
                grad_norm = clip_gradients(accelerator, training, config.max_grad_norm)
            training.optimizer.step()
            training.optimizer.zero_grad()
    training.update_ema()
    return grad_norm
