"""metrics.jsonl and the progress bar.

    {"step": 25, "loss": …, "loss_by_t": [four numbers or null], "lr": …, "grad_norm": …,
     "examples_per_s": …, "seconds": …}
    {"step": 100, "held_out_loss": …, "best_step": 100}

loss and loss_by_t are means since the line before. The bands of loss_by_t are the quarters of the
timesteps, from the data to noise. best_step is the step with the lowest held-out loss so far, if
the losses of two steps compare. A compiled training also has compile_seconds, those of its main
process since it started; they are part of seconds, and of what examples_per_s is measured over.
"""

import json
import math
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ...cache.format import N_TIMESTEPS
from ...config import Train
from ...files import write_jsonl
from ...run.progress_bar import progress_bar
from ...run.record import read_metrics
from ...run.run import Run
from ..compilation import compile_seconds
from .host_copy import HostCopy
from .phases import mark_phase
from .trackers import Trackers

BANDS = 4


class PassLosses(NamedTuple):
    """The losses and timesteps of a pass [2, n], the names of its examples, and its step."""

    values: HostCopy
    ids: Callable[[], list[str]]
    step: int


def start_metrics(run: Run, first: int) -> list[dict]:
    """Keep only the lines of the first `first` steps in metrics.jsonl, and return them."""
    lines = []
    if first:
        lines = [line for line in read_metrics(run.metrics) if line["step"] <= first]
    write_jsonl(run.metrics, lines)
    return lines


class MetricsLog:
    """The losses of every process, which the main one writes."""

    def __init__(
        self,
        run: Run,
        config: Train,
        first: int,
        accelerator,
    ):
        """Start the log. first: steps that are finished; lines of later ones are dropped."""
        self.run = run
        self.config = config
        self.trackers = Trackers(run, config, first, accelerator)
        self.main = accelerator.is_main_process
        self.first = first
        # sums of losses and their counts by band, since the last line
        self.totals = torch.zeros(2, BANDS, dtype=torch.float64)
        # passes whose losses a GPU may still compute
        self._pending: deque[PassLosses] = deque()
        self._started = self._last_line = time.perf_counter()
        if self.main:
            lines = start_metrics(run, first)
            times = [line["seconds"] for line in lines if "seconds" in line]
            self._seconds_before = times[-1] if times else 0.0
            self.bar = progress_bar(
                "train", total=config.steps, initial=first, unit="step", mininterval=5, ncols=88
            )

    def add_losses(
        self,
        losses: Tensor,
        t: Tensor,
        ids: Callable[[], list[str]],
        step: int,
    ):
        """Add the losses [n] of this process' examples at timesteps t [n].

        ids: returns the names of the examples.
        Errors: FloatingPointError if one is not finite, with the step and the examples. On a GPU
            it is raised one pass later, before anything is saved.
        """
        # double, because many of them are summed
        values = HostCopy(torch.stack([losses.detach().double(), t.double()]))
        self._pending.append(PassLosses(values, ids, step))
        # if the CPU waited for the losses of this pass, the GPU would wait for the next operations
        waits = not losses.is_cuda or self._has_line(step)
        self.settle(0 if waits else 1)

    def settle(self, n_pending: int = 0):
        """Add up the losses of all passes except the last `n_pending`, and check them.

        Errors: as of `add_losses`.
        """
        while len(self._pending) > n_pending:
            losses = self._pending.popleft()
            values, t = losses.values.result()
            if not values.isfinite().all():
                self._reject_losses(values, losses.ids(), losses.step)
            band = t.long() * BANDS // N_TIMESTEPS
            self.totals[0].index_add_(0, band, values)
            self.totals[1].index_add_(0, band, torch.ones_like(values))

    def _has_line(self, step: int) -> bool:
        # the last step always has a line: it is what the card quotes
        return step % self.config.log_every == 0 or step == self.config.steps

    def _reject_losses(self, losses: Tensor, ids: list[str], step: int):
        pairs = zip(ids, losses.tolist(), strict=True)
        examples = [f"{name} (loss {loss})" for name, loss in pairs if not math.isfinite(loss)]
        raise FloatingPointError(
            f"the loss is not finite at step {step}, for {', '.join(examples)}; try a lower "
            f"learning_rate (it is {self.config.learning_rate:g}) or mixed_precision fp32, and "
            "look at these examples"
        )

    def log_step(
        self,
        step: int,
        lr: float,
        grad_norm: float | Tensor | None,
        totals: Tensor,
    ):
        """Write a line, if this step has one.

        totals: `self.totals`, summed over the processes, flat.
        """
        if self.main:
            self.bar.update()
        if not self._has_line(step):
            return
        if self.main:
            self._write_step(step, lr, grad_norm, totals.view(2, BANDS))
        self.totals.zero_()

    def _write_step(
        self,
        step: int,
        lr: float,
        grad_norm: float | Tensor | None,
        totals: Tensor,
    ):
        sums, counts = totals.tolist()
        now = time.perf_counter()
        bands = zip(sums, counts, strict=True)
        loss = round(sum(sums) / sum(counts), 8)
        # fp16 skips a step whose norm is not finite; JSON has no such number
        finite = grad_norm is not None and math.isfinite(grad_norm)
        line = {
            "step": step,
            "loss": loss,
            "loss_by_t": [round(total / n, 8) if n else None for total, n in bands],
            "lr": lr,
            "grad_norm": float(grad_norm) if finite else None,
            "examples_per_s": round(sum(counts) / max(now - self._last_line, 1e-9), 2),
            "seconds": round(self._seconds_before + now - self._started, 2),
        }
        if self.config.compile != "off":
            line["compile_seconds"] = round(compile_seconds(), 2)
        self._last_line = now
        self.bar.set_postfix_str(f"loss {loss:.4f}")
        self.write(line)

    def resume_training(self):
        """Return to training after something else, whose time examples_per_s leaves out."""
        self._last_line = time.perf_counter()
        mark_phase(self.run, "train")

    def write(self, line: dict):
        """Append a line, from the main process, and log it to the trackers."""
        # opened for each line, because a resumed training rewrites the file
        with self.run.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.trackers.log(line)
