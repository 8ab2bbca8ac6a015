"""The training function: what every process runs, from the Accelerator to the saved adapter."""

import json
import math
import time
from dataclasses import asdict
from typing import Any

from ..config import Train
from ..files import read_lines, write_atomic, write_lines
from ..run import Run


def training_function(config: Train, run: Run, inputs: dict[str, str]):
    """Train the adapter; all results go through the run's files. To be called by `launch` in each process."""
    import torch

    torch.set_num_threads(1)  # OpenMP's threads do not survive the fork that made this process
    from ..adapter import attach
    from ..models import BaseError, find_base
    from .checkpoint import latest, resume, save_checkpoint
    from .data import Examples
    from .guidance import Student, guidance_loss
    from .launch import new_accelerator

    accelerator = new_accelerator(config.zero_stage, config.batch_size, config.clip)
    examples = Examples(run.cache)
    base = find_base(examples.meta["base"])
    if base.hash != examples.meta["base_hash"]:
        raise BaseError(f"base {base.name!r} is not the one that the cache was made with; run notebooks/1_prepare.ipynb again")
    unet = base.unet().to(accelerator.device)
    parameters = attach(unet, config.rank, config.alpha, config.seed)
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    alphas_cumprod = base.scheduler().alphas_cumprod.to(accelerator.device)
    student = Student(unet, alphas_cumprod, base.prediction_type, dtype)
    optimizer = torch.optim.AdamW(parameters, config.lr, weight_decay=0.0)
    engine, optimizer = accelerator.prepare(student, optimizer)
    unet.to(memory_format=torch.channels_last)  # not earlier: DeepSpeed cannot broadcast such weights
    checkpoint = latest(run.checkpoints, inputs)
    first = resume(accelerator, checkpoint) if checkpoint else 0
    log = Log(run, config, first, accelerator)
    for step in range(first, config.steps):
        for group in optimizer.param_groups:
            group["lr"] = config.lr * schedule(step, config.steps)
        place = (config.batch_size, accelerator.process_index, accelerator.num_processes, accelerator.device)
        loss = guidance_loss(engine, student, examples.batch(config.seed, step, *place), config.guidance)
        accelerator.backward(loss)  # DeepSpeed's engine steps the optimizer in it
        log.step(step + 1, accelerator.reduce(loss.detach(), "mean"), optimizer, engine)
        if (step + 1) % config.checkpoint_every == 0 and step + 1 < config.steps:
            save_checkpoint(accelerator, run.checkpoints, step + 1, inputs)
    if accelerator.is_main_process:
        finish(config, run, base, unet, log, accelerator)
    accelerator.wait_for_everyone()
    accelerator.end_training()


def schedule(step: int, steps: int, warmup: int = 10, last: float = 0.1) -> float:
    """The learning rate's factor: ten steps up to 1, a cosine down to a tenth."""
    if step < warmup:
        return (step + 1) / warmup
    return last + (1 - last) * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


class Log:
    """metrics.jsonl and the progress line, from the main process."""

    def __init__(self, run: Run, config: Train, first: int, accelerator):
        from tqdm.std import tqdm

        self.run, self.config, self.accelerator, self.main = run, config, accelerator, accelerator.is_main_process
        self.losses: list[float] = []  # since the last line
        self.start = self.last = time.perf_counter()
        if self.main:
            kept = [line for line in read_lines(run.metrics) if line["step"] <= first] if first else []
            write_lines(run.metrics, kept)
            self.before = kept[-1]["seconds"] if kept else 0.0
            self.bar = tqdm(total=config.steps, initial=first, desc="train", unit="step", mininterval=5, ncols=88)

    def step(self, step: int, loss: Any, optimizer, engine):
        """Note a step's loss, averaged over the processes, [] fp32. Errors: FloatingPointError where it is not finite."""
        value = float(loss)
        if not math.isfinite(value):
            raise FloatingPointError(f"the loss is {value} at step {step}; try a lower lr (it is {self.config.lr:g})")
        if not self.main:
            return
        self.losses.append(value)
        self.bar.update()
        if step % self.config.log_every and step != self.config.steps:
            return
        now, norm = time.perf_counter(), engine.get_global_grad_norm()
        examples = len(self.losses) * self.config.batch_size * self.accelerator.num_processes
        line = {
            "step": step,
            "loss": round(sum(self.losses) / len(self.losses), 8),
            "lr": optimizer.param_groups[0]["lr"],
            "grad_norm": None if norm is None else float(norm),  # ZeRO 0 keeps none
            "examples_per_s": round(examples / max(now - self.last, 1e-9), 2),
            "seconds": round(self.before + now - self.start, 2),
        }
        self.last, self.losses = now, []
        self.bar.set_postfix_str(f"loss {line['loss']:.4f}")
        with self.run.metrics.open("a") as file:
            file.write(json.dumps(line) + "\n")


def finish(config: Train, run: Run, base, unet, log: Log, accelerator):
    """Save the adapter, check that the file loads the stock way, and leave what the parent wants to know."""
    from ..adapter import save_adapter, verify
    from .card import write_card
    from .launch import RESULT

    log.bar.close()
    facts = {
        "base": base.name,
        "base_hash": base.hash,
        "w_train": config.guidance,
        "sample_with": "guidance_scale=1",
        "train": {name: value for name, value in asdict(config).items() if name != "run"},
    }
    save_adapter(run.adapter, unet, facts)
    metrics = read_lines(run.metrics)
    recent = metrics[-max(1, len(metrics) // 10) :]
    result = {
        "distributed_type": accelerator.distributed_type.value,
        "processes": accelerator.num_processes,
        "zero_stage": accelerator.state.deepspeed_plugin.zero_stage,
        "device": str(accelerator.device),
        "loss": sum(line["loss"] for line in recent) / len(recent),
        "stock_difference": verify(run.adapter, unet, base.unet()),
    }
    write_card(run, facts, result)
    write_atomic(run.folder / RESULT, json.dumps(result))
