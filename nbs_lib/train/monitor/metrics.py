"""metrics.jsonl and the progress line.

    {"step": 25, "loss": …, "loss_by_t": [four numbers or null], "lr": …, "grad_norm": …, "examples_per_s": …, "seconds": …}
    {"step": 100, "held_out_loss": …}

loss and loss_by_t are means since the line before; the bands are the quarters of the timesteps, from the data to noise.
"""

import json
import math
import time
from collections.abc import Callable
from typing import Any

import torch

from ...config import Train
from ...files import write_jsonl
from ...run.progress_bar import progress_bar
from ...run.record import read_metrics
from ...run.run import Run
from ..dataset import TIMESTEPS
from .phases import mark_phase

BANDS = 4


def start_metrics(run: Run, first: int) -> list[dict[str, Any]]:
    """Keep the lines of the first `first` steps in metrics.jsonl, which a resumed training goes on from, and return them."""
    kept = [line for line in read_metrics(run.metrics) if line["step"] <= first] if first else []
    write_jsonl(run.metrics, kept)
    return kept


class MetricsLog:
    """Notes what every process has seen; the main one writes."""

    def __init__(self, run: Run, config: Train, first: int, accelerator):
        """first: steps that are done already; later lines of a training that was cut off are dropped."""
        self.run, self.config, self.accelerator, self.main = (
            run,
            config,
            accelerator,
            accelerator.is_main_process,
        )
        self.first = first
        self.seen = torch.zeros(
            2, BANDS, dtype=torch.float64
        )  # sums and counts since the last line
        self.start = self.last = time.perf_counter()
        if self.main:
            kept = start_metrics(run, first)
            self.before = next(
                (line["seconds"] for line in reversed(kept) if "seconds" in line), 0.0
            )
            self.bar = progress_bar(
                "train", total=config.steps, initial=first, unit="step", mininterval=5, ncols=88
            )

    def losses(
        self, losses: torch.Tensor, t: torch.Tensor, ids: Callable[[], list[str]], step: int
    ):
        """Note the losses [n] of this process' examples at timesteps t [n].

        Errors: FloatingPointError where one is not finite, with the step and the examples.
        """
        losses, band = losses.detach().double().cpu(), (t.cpu() * BANDS // TIMESTEPS)
        if not losses.isfinite().all():
            bad = [
                f"{each} (loss {float(loss)})"
                for each, loss in zip(ids(), losses, strict=True)
                if not loss.isfinite()
            ]
            raise FloatingPointError(
                f"the loss is not finite at step {step}, for {', '.join(bad)}; try a lower learning_rate "
                f"(it is {self.config.learning_rate:g}) "
                f"or mixed_precision fp32, and look at these examples"
            )
        self.seen[0].index_add_(0, band, losses)
        self.seen[1].index_add_(0, band, torch.ones_like(losses))

    def step(
        self, step: int, lr: float, grad_norm: float | torch.Tensor | None, seen: torch.Tensor
    ):
        """A step is done; every `log_every` of them makes a line. seen: `self.seen`, summed over the processes, flat."""
        if self.main:
            self.bar.update()
        if step % self.config.log_every and step != self.config.steps:
            return
        sums, counts = seen.view(2, BANDS).tolist()
        self.seen.zero_()
        if not self.main:
            return
        now = time.perf_counter()
        bands = [round(a / n, 8) if n else None for a, n in zip(sums, counts, strict=True)]
        line = {
            "step": step,
            "loss": round(sum(sums) / sum(counts), 8),
            "loss_by_t": bands,
            "lr": lr,
            "grad_norm": None
            if grad_norm is None or not math.isfinite(grad_norm)
            else float(grad_norm),
            "examples_per_s": round(sum(counts) / max(now - self.last, 1e-9), 2),
            "seconds": round(self.before + now - self.start, 2),
        }
        self.last = now
        self.bar.set_postfix_str(f"loss {line['loss']:.4f}")
        self.write(line)

    def rest(self):
        """What went by since the last line was no training; examples_per_s leaves it out."""
        self.last = time.perf_counter()
        mark_phase(self.run, "train")

    def write(self, line: dict):
        """Add a line, from the main process; TensorBoard gets its numbers too, where it was asked for."""
        with self.run.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self.config.tensorboard:
            numbers = {
                name: value
                for name, value in line.items()
                if isinstance(value, int | float) and name != "step"
            }
            self.accelerator.log(numbers, step=line["step"])
