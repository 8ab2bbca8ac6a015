"""The usage of a training, sampled from the kernel: usage.jsonl, and a live loss curve.

    {"seconds": 12.01, "cpu_percent": …, "processes": […], "gpus": […]}    a sample, see `hardware`
    {"seconds": 12.34, "stage": "validate"}                                a phase that begins
    {"seconds": 99.10, "stage": null}                                      the end

seconds: since the training began; a resumed one continues from the last line.
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
from .loss_plot import loss_figure
from .phases import PhaseReader
from .plots import png

INTERVAL = 1.0  # seconds between two samples
REDRAW_INTERVAL = 3.0  # seconds between two pictures
# Share of one core's time that samples may cost; costly ones come less often.
SAMPLING_SHARE = 0.004
# Share of one core's time that pictures may cost.
DRAWING_SHARE = 0.03


class UsageMonitor:
    """A context whose thread records usage and, in a notebook, redraws the loss curve.

    seconds: of the training.
    share: of these seconds, the part in which the thread kept a core busy.
    """

    def __init__(self, run: Run, resumed: bool = False):
        """Prepare the thread. resumed: True to continue the lines of the training before."""
        self.run = run
        self.seconds = 0.0
        self.share = 0.0
        self._earlier: list[dict] = []
        if resumed:
            self._earlier = [row for row in read_jsonl(run.usage) if is_number(row.get("seconds"))]
        self._pids: dict[int, int] = {}
        self._n_processes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._busy = 0.0  # seconds
        self._display: Any = None
        self._drawn_size = 0  # bytes of metrics.jsonl when the curve was drawn

    def __enter__(self) -> "UsageMonitor":
        self._start = time.monotonic()
        self._seconds_before = self._earlier[-1]["seconds"] if self._earlier else 0.0
        write_jsonl(self.run.usage, self._earlier)
        self._marks = PhaseReader(self.run)
        self._display = _display_handle()
        self._thread.start()
        return self

    def __exit__(self, *_: Any):
        end = time.monotonic()
        self._stop.set()
        # the thread's last line must not come after the end's
        self._thread.join()
        self.seconds = end - self._start
        self.share = self._busy / self.seconds
        self._read_marks()
        self._write(end, {"stage": None})
        self._marks.remove()
        if self._display:
            self._redraw()

    def _watch(self):
        try:
            # only read marks until all processes exist: if a library's lock were held here while
            # one is forked, it would stay locked there
            while not self._read_marks():
                if self._stop.wait(INTERVAL):
                    return
            self._sample_until_stopped(HardwareSampler(self._pids))
        finally:
            self._busy = time.thread_time()

    def _sample_until_stopped(self, sampler: HardwareSampler):
        pause = INTERVAL
        redraw_at = time.monotonic()
        while not self._stop.wait(pause):
            pause = max(INTERVAL, _cost(lambda: self._sample(sampler)) / SAMPLING_SHARE)
            if self._display and time.monotonic() > redraw_at:
                cost = _cost(self._redraw)
                redraw_at = time.monotonic() + max(REDRAW_INTERVAL, cost / DRAWING_SHARE)

    def _read_marks(self) -> bool:
        """Record the new marks; return True when all processes have marked a phase."""
        for mark in self._marks.new_marks():
            self._pids[mark["rank"]] = mark["pid"]
            self._n_processes = mark["of"]
            # the main process alone validates and saves, so its phases are the training's
            if mark["rank"] == 0:
                self._write(mark["time"], {"stage": mark["stage"]})
        return bool(self._pids) and len(self._pids) >= self._n_processes

    def _sample(self, sampler: HardwareSampler):
        self._read_marks()
        self._write(time.monotonic(), sampler.sample())

    def _write(self, moment: float, row: dict):
        seconds = round(self._seconds_before + moment - self._start, 2)
        line = json.dumps({"seconds": seconds} | row) + "\n"
        # a full disk does not stop the monitor; the training reports it
        with suppress(OSError), self.run.usage.open("a") as file:
            file.write(line)

    def _redraw(self):
        # a picture is costly: only after new lines, and not before the first loss
        metrics = self.run.metrics
        size = metrics.stat().st_size if metrics.exists() else 0
        if size != self._drawn_size and any("loss" in line for line in read_metrics(metrics)):
            self._display.update(_Picture(png(loss_figure(self.run))))
            self._drawn_size = size


def _cost(work: Callable[[], Any]) -> float:
    """Return the seconds for which `work` keeps this thread's core busy."""
    before = time.thread_time()
    work()
    return time.thread_time() - before


class _Picture:
    """A PNG that a notebook shows, with an alternative text."""

    def __init__(self, content: bytes):
        self.content = content

    def _repr_png_(self) -> bytes:
        return self.content

    def __repr__(self) -> str:
        return "Loss of the training by step"


def _display_handle() -> Any:
    """Return the display of the live curve; None outside of a notebook."""
    # here: a training on the command line needs no IPython
    from IPython import get_ipython
    from IPython.display import Pretty, display

    shell = get_ipython()
    # a terminal's IPython has no kernel, and cannot update what it has printed
    if not hasattr(shell, "kernel"):
        return None
    # a plain string would be shown in quotes
    return display(Pretty("The loss curve appears here after some steps."), display_id=True)
