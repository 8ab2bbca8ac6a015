"""What a stage is at: in a terminal a line that moves, elsewhere a plain line now and then.

It is read from what the run leaves in its folder anyway, metrics.jsonl and what the notebook prints, so a stage needs to
know nothing of it.
"""

import os
import re
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from ..run.record import metrics_line
from ..run.run import Run
from ..run.terminal_text import printable

MOVES, PLAIN = (
    0.5,
    30.0,
)  # seconds from one look to the next in a terminal, and from one plain line to the next
TAIL = 4096
"""Bytes at the end of metrics.jsonl that hold its last line."""
BAR = re.compile(
    r"(?:(?P<name>.*\S) ?: +)?\d+%\|.*\| (?P<done>[\d.]+\w?)/(?P<all>[\d.]+\w?) \[.*<(?P<left>[\d:?]+).*"
)
"""A bar of tqdm's, without what it is drawn with."""


def print_progress(line: str):
    """Print a line, as long as anybody reads them; a stage goes on without."""
    try:
        print(line, flush=True)
    except OSError:  # the reader is gone, or the disk that they go to is full
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115


SPOKEN = (print, print_progress)
"""Where lines go to a terminal, in which one may move."""


class Progress:
    """A context in which a thread shows the progress of a stage. say: where plain lines go; None shows nothing."""

    def __init__(self, run: Run, stage: str, config: Any, log, say: Callable[[str], None] | None):
        self.run, self.stage, self.config, self.log, self.say = run, stage, config, log, say
        self.moving = say in SPOKEN and sys.stderr.isatty()
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._show, daemon=True)
        self.before = self._stamp()
        self.first: tuple[int, float] | None = None

    def __enter__(self):
        self.start = time.monotonic()
        if self.say:
            self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        if self.say:
            self.thread.join()

    def _show(self):
        while not self.ended.wait(MOVES if self.moving else PLAIN):
            if self.moving:
                print(
                    f"\r\x1b[K      {self.words()[: _columns() - 7]}",
                    end="",
                    file=sys.stderr,
                    flush=True,
                )
            else:
                self.say(f"      {self.words()}")
        if self.moving:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def words(self) -> str:
        """The stage, how long it has been at work, and how far it is."""
        now = time.monotonic()
        at = self._step(now) or BAR.sub(
            _in_words, re.split(r"[\r\n]+", self.log.seen.strip())[-1].strip()
        )
        return (
            f"{self.stage} {format_duration(now - self.start)}{': ' if at else ''}{printable(at)}"
        )

    def _step(self, now: float) -> str:
        """Step, loss and time left of a training; "" for another stage, and until its first line of metrics."""
        if self.stage != "train" or self._stamp() == self.before or not (line := self._last()):
            return ""
        step, steps = line["step"], self.config.steps
        if self.config.epochs:  # which the training has turned into steps
            steps = self.run.stage_record("train").get("resolved", {}).get("steps", steps)
        self.first = self.first or (step, now)
        done, seconds = step - self.first[0], now - self.first[1]
        left = f", {format_duration(seconds / done * (steps - step))} left" if done > 0 else ""
        loss = f", loss {line['loss']:.4f}" if "loss" in line else ""
        return f"step {step} of {steps}{loss}{left}"

    def _last(self) -> dict[str, Any]:
        """The last line of the metrics with a loss, or else the last whole one; {} where there is none."""
        try:
            with self.run.metrics.open("rb") as file:
                file.seek(max(0, file.seek(0, 2) - TAIL))
                lines = [
                    line
                    for text in file.read().split(b"\n")[:-1][-5:]
                    if (line := metrics_line(text))
                ]
        except OSError:
            return {}
        return next(
            (line for line in reversed(lines) if "loss" in line), lines[-1] if lines else {}
        )

    def _stamp(self) -> tuple[int, int] | None:
        """What tells a file of metrics from that of an earlier training."""
        try:
            told = self.run.metrics.stat()
        except OSError:
            return None
        return told.st_mtime_ns, told.st_size


def _in_words(bar: re.Match) -> str:
    name = f"{bar['name']} " if bar["name"] else ""
    left = f", {bar['left']} left" if bar["left"] not in ("?", "00:00") else ""
    return f"{name}{bar['done']} of {bar['all']}{left}"


def _columns() -> int:
    import shutil

    return shutil.get_terminal_size().columns


def format_duration(seconds: float) -> str:
    """`4 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return (
        f"{whole // 60} min {whole % 60} s"
        if whole < 3600
        else f"{whole // 3600} h {whole % 3600 // 60} min"
    )
