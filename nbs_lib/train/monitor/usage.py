"""Watching a training from the kernel: usage.jsonl, a line a second, and in a notebook a loss curve that moves.

    {"seconds": 12.01, "cpu_percent": …, "processes": […], "gpus": […]}    what `meter` saw
    {"seconds": 12.34, "stage": "validate"}                                what the main process began then
    {"seconds": 99.10, "stage": null}                                      the end

seconds: since the training began; one that is resumed counts on from the last line before.
"""

import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ...files import read_jsonl, write_jsonl
from ...run.record import is_number, read_metrics
from ...run.run import Run
from .hardware import HardwareSampler
from .phases import PhaseReader
from .plots import loss_figure, png

EVERY, REDRAW = 1.0, 3.0  # seconds from one look to the next, and from one picture to the next
SHARE, PICTURES = 0.004, 0.03
"""Of one core's time, the most that looks may cost, and that pictures may: dear ones come less often."""


class UsageMonitor:
    """A context in which a thread notes usage and, in a notebook, redraws the loss curve.

    seconds: that the training took. share: of them, those in which the thread kept a core busy; 0.01 is 1 %.
    Until all processes have marked that they are there, the thread only looks for their marks: a lock of a library that it
    held while one is forked would stay locked in it.
    """

    def __init__(self, run: Run, resumed: bool = False):
        """resumed: the lines of the training that goes on are kept, and time is counted on from them."""
        self.run, self.seconds, self.share = run, 0.0, 0.0
        self._kept = (
            [line for line in read_jsonl(run.usage) if is_number(line.get("seconds"))]
            if resumed
            else []
        )
        self._pids: dict[int, int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._busy, self._picture, self._drawn = 0.0, None, 0

    def __enter__(self) -> "UsageMonitor":
        self._start = time.monotonic()
        self._before = self._kept[-1]["seconds"] if self._kept else 0.0
        write_jsonl(self.run.usage, self._kept)
        self._marks = PhaseReader(self.run)
        self._picture = _display_handle()
        self._thread.start()
        return self

    def __exit__(self, *_: Any):
        end = time.monotonic()
        self._stop.set()
        self._thread.join()
        self.seconds = end - self._start
        self.share = self._busy / self.seconds
        self._all_there()
        self._write(end, {"stage": None})
        self._marks.remove()
        if self._picture:
            self._redraw()

    def _watch(self):
        try:
            while not self._all_there():
                if self._stop.wait(EVERY):
                    return
            meter, pause, due = HardwareSampler(self._pids), EVERY, time.monotonic()
            while not self._stop.wait(pause):
                pause = max(EVERY, _cost(lambda: self._look(meter)) / SHARE)
                if self._picture and time.monotonic() > due:
                    cost = _cost(self._redraw)
                    due = time.monotonic() + max(REDRAW, cost / PICTURES)
        finally:
            self._busy = time.thread_time()

    def _all_there(self) -> bool:
        """Note what was marked since the last call; whether all processes have marked something by now."""
        for mark in self._marks.new():
            self._pids[mark["rank"]], self._expected = mark["pid"], mark["of"]
            if mark["rank"] == 0:
                self._write(mark["time"], {"stage": mark["stage"]})
        return bool(self._pids) and len(self._pids) >= self._expected

    def _look(self, meter: HardwareSampler):
        self._all_there()
        self._write(time.monotonic(), meter.look())

    def _write(self, moment: float, told: dict[str, Any]):
        with (
            suppress(OSError),
            self.run.usage.open("a") as file,
        ):  # a disk that is full is no matter of this thread
            file.write(
                json.dumps({"seconds": round(self._before + moment - self._start, 2)} | told) + "\n"
            )

    def _redraw(self):
        size = self.run.metrics.stat().st_size if self.run.metrics.exists() else 0
        if size == self._drawn:  # nothing has come since
            return
        if any(
            "loss" in line for line in read_metrics(self.run.metrics)
        ):  # before that the words stay
            self._picture.update(_Picture(png(loss_figure(self.run))))
            self._drawn = size


def _cost(work: Callable[[], Any]) -> float:
    """Seconds for which `work` keeps this thread's core busy."""
    before = time.thread_time()
    work()
    return time.thread_time() - before


class _Words:
    """Words as a notebook shows them, where a plain string would stand in quotes."""

    def __init__(self, words: str):
        self.words = words

    def __repr__(self) -> str:
        return self.words


class _Picture:
    """A PNG as a notebook shows it, with a text for those who cannot see it."""

    def __init__(self, content: bytes):
        self.content = content

    def _repr_png_(self) -> bytes:
        return self.content

    def __repr__(self) -> str:
        return "Loss of the training by step"


def _display_handle():
    from IPython import get_ipython
    from IPython.display import display

    shell = get_ipython()
    if shell is None or not hasattr(shell, "kernel"):
        return None
    return display(_Words("The loss curve appears here after some steps."), display_id=True)
