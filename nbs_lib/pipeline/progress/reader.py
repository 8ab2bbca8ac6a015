"""The progress of a stage: a moving line in a terminal, elsewhere a plain line now and then.

A stage does nothing for it: the progress is read from metrics.jsonl and from what the notebook
prints.
"""

import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from ..run.record import metrics_line
from ..run.run import Run
from ..run.terminal_text import printable

# seconds between two states of the moving line
MOVING_INTERVAL = 0.5
# seconds between two plain lines
PLAIN_INTERVAL = 30.0
# bytes at the end of metrics.jsonl that hold its last lines
TAIL_SIZE = 4096
# the drawn part of a tqdm bar: the numbers around it say the same in words
BAR = re.compile(r"\d+%\|[^|]*\| *")
Say = Callable[[str], None]
CLEAR_LINE = "\r\x1b[K"


def print_progress(line: str):
    """Print a line. Once nobody reads the lines any more, print nothing, so the stage goes on."""
    try:
        print(line, flush=True)
    except OSError:
        # the reader is gone, or the disk that the lines go to is full
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115


# functions whose lines go to the terminal, where a line may move
PRINTERS = (print, print_progress)


class Progress:
    """A context in which a thread shows the progress of a stage.

    log: the log with the notebook's output
    say: prints plain lines, None shows nothing
    """

    def __init__(
        self,
        run: Run,
        stage: str,
        config: Any,
        log,
        say: Say | None,
    ):
        self.run = run
        self.stage = stage
        self.config = config
        self.log = log
        self.say = say
        self.moving = say in PRINTERS and sys.stderr.isatty()
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._show, daemon=True)
        self.start = time.monotonic()
        # until the file changes, its lines are those of an earlier training
        self.earlier_metrics = self._metrics_version()
        self.first = None

    def __enter__(self):
        if self.say:
            self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        # joined, or its last line could come after the command's next one
        if self.say:
            self.thread.join()

    def _show(self):
        while not self.ended.wait(MOVING_INTERVAL if self.moving else PLAIN_INTERVAL):
            if self.moving:
                # a line as wide as the terminal would wrap, and could not be cleared
                width = shutil.get_terminal_size().columns - 7
                self._write(f"{CLEAR_LINE}      {self.describe()[:width]}")
            else:
                self.say(f"      {self.describe()}")
        if self.moving:
            self._write(CLEAR_LINE)

    def _write(self, text: str):
        print(text, end="", file=sys.stderr, flush=True)

    def describe(self) -> str:
        """Return the stage, the time since it began, and its step or its last line of output."""
        now = time.monotonic()
        detail = self._training_step(now)
        if not detail:
            last_line = re.split(r"[\r\n]+", self.log.tail.strip())[-1].strip()
            # a bar is drawn again and again on one line, each time after \r
            detail = BAR.sub("", last_line)
        separator = ": " if detail else ""
        return f"{self.stage} {format_duration(now - self.start)}{separator}{printable(detail)}"

    def _training_step(self, now: float) -> str:
        """Return step, loss and time left of a training, "" until its first line of metrics."""
        if self.stage != "train" or self._metrics_version() == self.earlier_metrics:
            return ""
        metrics = self._last_metrics()
        if not metrics:
            return ""
        step = metrics["step"]
        steps = self.config.steps
        if self.config.epochs:
            # the training has turned the epochs into steps
            steps = self.run.stage_record("train").get("resolved", {}).get("steps", steps)
        text = f"step {step} of {steps}"
        if "loss" in metrics:
            text += f", loss {metrics['loss']:.4f}"
        # a resumed training does not begin at step 0, so its speed counts from the first step seen
        self.first = self.first or (step, now)
        first_step, first_time = self.first
        if step > first_step:
            seconds_per_step = (now - first_time) / (step - first_step)
            at_most = "at most " if self.config.early_stopping_patience else ""
            text += f", {at_most}{format_duration(seconds_per_step * (steps - step))} left"
        return text

    def _last_metrics(self) -> dict:
        """Return the last line of the metrics with a loss, or the last whole line, or {}."""
        try:
            with self.run.metrics.open("rb") as file:
                file.seek(max(0, file.seek(0, 2) - TAIL_SIZE))
                # what follows the last newline is a line that is still being written
                texts = file.read().split(b"\n")[:-1]
        except OSError:
            return {}
        # a line without the loss may stand last
        rows = [row for row in map(metrics_line, texts[-5:]) if row]
        # a line of a validation has no loss
        with_loss = [row for row in rows if "loss" in row]
        return (with_loss or rows or [{}])[-1]

    def _metrics_version(self) -> tuple[int, int] | None:
        """Return a value that changes with metrics.jsonl, None if there is no file."""
        try:
            status = self.run.metrics.stat()
        except OSError:
            return None
        # both, because a clock may be coarse
        return status.st_mtime_ns, status.st_size


def format_duration(seconds: float) -> str:
    """Return `4 s`, `3 min 20 s` or `2 h 5 min`."""
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
