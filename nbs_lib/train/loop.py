"""The training function: what every process runs, from the Accelerator to the saved weights."""

from ..config import Train
from ..run import Run


def training_function(config: Train, run: Run, inputs: dict[str, str]):
    """Train; all results go through the run's files. To be called by `launch` in each process."""
    import torch

    torch.set_num_threads(1)  # OpenMP's threads do not survive the fork that made this process
    from .checkpoint import latest, resume, save_checkpoint
    from .finish import finish
    from .launch import new_accelerator
    from .log import Log
    from .objectives import OBJECTIVES
    from .parts import build, learning_rate
    from .validate import Validation

    accelerator = new_accelerator(config, run.folder)
    parts, loss_of = build(config, run, accelerator), OBJECTIVES[config.objective].loss
    checkpoint = latest(run.checkpoints, inputs)
    first = resume(accelerator, checkpoint) if checkpoint else 0
    if parts.ema:
        parts.ema.to(accelerator.device)  # accelerate loads it to the CPU
    log, validation = Log(run, config, first, accelerator), Validation(run, config, parts, accelerator, first)
    if not first and validation.due(0):
        validation.look(0, log)
    for step in range(first, config.steps):
        for group in parts.optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        for part in range(config.accumulate):
            share = part * accelerator.num_processes + accelerator.process_index
            batch = parts.examples.batch(step, share, accelerator.num_processes * config.accumulate).to(accelerator.device)
            with accelerator.accumulate(parts.engine):
                losses = loss_of(parts.engine, parts.student, batch, config)
                log.losses(losses, batch.t, lambda batch=batch: parts.examples.ids(batch.example), step + 1)
                accelerator.backward((losses * batch.weight).mean())  # DeepSpeed's engine steps the optimizer in it
        if parts.ema:
            parts.ema.step(parts.parameters)
        log.step(step + 1, learning_rate(config, step), parts.engine.get_global_grad_norm())
        if validation.due(step + 1):
            validation.look(step + 1, log)
            log.rest()
        if (step + 1) % config.checkpoint_every == 0 and step + 1 < config.steps:
            save_checkpoint(accelerator, run.checkpoints, step + 1, inputs)
            log.rest()
    if accelerator.is_main_process:
        finish(config, run, parts, log, accelerator)
    accelerator.wait_for_everyone()
    accelerator.end_training()
