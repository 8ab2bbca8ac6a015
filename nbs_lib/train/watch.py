"""Watching a training from the kernel: a line a second of what the machine does, and a loss curve that moves."""

import io
import json
import threading
import time
from typing import Any

import psutil
from matplotlib.figure import Figure

from ..files import read_lines, write_atomic, write_lines
from ..run import Run

FIRST, EVERY, REDRAW = 4.0, 1.0, 10.0  # seconds: until the first look, between looks, between pictures
BLUE, ORANGE, GREY = "#2563eb", "#ea580c", "#94a3b8"


class Watch:
    """A context in which a thread notes usage and, in a notebook, redraws the loss curve.

    The thread is idle while the processes are forked: a lock held by it would stay locked in them.
    """

    def __init__(self, run: Run, resumed: bool = False):
        """resumed: the lines of the training that goes on are kept, and time is counted on from them."""
        self.run, self.seconds = run, 0.0
        self._kept = read_lines(run.usage) if resumed else []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._picture = None

    def __enter__(self) -> "Watch":
        self._start = time.perf_counter()
        self._before = self._kept[-1]["seconds"] if self._kept else 0.0
        write_lines(self.run.usage, self._kept)
        self._gpus = _gpu_handles()
        self._picture = _display_handle()
        psutil.cpu_percent()
        self._thread.start()
        return self

    def __exit__(self, *_: Any):
        self.seconds = time.perf_counter() - self._start
        self._stop.set()
        self._thread.join()
        if self._picture:
            self._picture.update(_Png(loss_figure(self.run)))

    def _watch(self):
        pause, drawn = FIRST, 0.0
        while not self._stop.wait(pause):
            pause, now = EVERY, time.perf_counter() - self._start
            with self.run.usage.open("a") as file:
                file.write(json.dumps({"seconds": round(self._before + now, 1)} | usage(self._gpus)) + "\n")
            if self._picture and now - drawn > REDRAW:
                drawn = now
                self._picture.update(_Png(loss_figure(self.run)))


class _Png:
    """A figure as a notebook shows it, with a text for those who cannot see it."""

    def __init__(self, figure: Figure):
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
        self.png = buffer.getvalue()

    def _repr_png_(self) -> bytes:
        return self.png

    def __repr__(self) -> str:
        return "Loss of the training by step"


def _display_handle():
    from IPython import get_ipython
    from IPython.display import display

    shell = get_ipython()
    if shell is None or not hasattr(shell, "kernel"):
        return None
    return display("the loss curve appears here after some steps", display_id=True)


def _gpu_handles() -> list:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    return [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]


def usage(gpus: list) -> dict[str, float]:
    """CPU in percent of the machine; memory of this process and its children in MiB; the same of the GPUs, summed."""
    me, resident = psutil.Process(), 0
    for process in [me, *me.children(recursive=True)]:
        try:
            resident += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    told = {"cpu_percent": psutil.cpu_percent(), "memory_mib": round(resident / 2**20, 1)}
    return told | (_gpu_usage(gpus) if gpus else {})


def _gpu_usage(gpus: list) -> dict[str, float]:
    """Nothing where the driver does not tell, as it does not for a part of a GPU."""
    import pynvml

    try:
        percent = sum(pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu for gpu in gpus) / len(gpus)
        used = sum(pynvml.nvmlDeviceGetMemoryInfo(gpu).used for gpu in gpus)
    except pynvml.NVMLError:
        return {}
    return {"gpu_percent": percent, "gpu_memory_mib": round(used / 2**20, 1)}


def loss_figure(run: Run) -> Figure:
    """The loss by step on a log scale, each logged value and a running mean."""
    figure = Figure((7, 3), dpi=110, layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    lines = read_lines(run.metrics)
    logged = [line for line in lines if "loss" in line]
    steps, losses = [line["step"] for line in logged], [line["loss"] for line in logged]
    axes.plot(steps, losses, color=GREY, linewidth=0.8, label="logged")
    smooth, mean = [], None
    for loss in losses:
        mean = loss if mean is None else 0.85 * mean + 0.15 * loss
        smooth.append(mean)
    axes.plot(steps, smooth, color=BLUE, linewidth=2, label="running mean")
    held_out = [(line["step"], line["held_out_loss"]) for line in lines if "held_out_loss" in line]
    if held_out:
        axes.plot(*zip(*held_out, strict=True), color=ORANGE, linewidth=1.5, marker="o", markersize=4, label="held out")
    if losses:
        axes.set_yscale("log")
        axes.set_title(f"step {steps[-1]}   loss {smooth[-1]:.4f}", loc="left", fontsize=10)
        axes.legend(frameon=False)
    return figure


def usage_figure(run: Run) -> Figure:
    """CPU and, where there is one, GPU use; and memory."""
    lines = read_lines(run.usage)
    figure = Figure((7, 3), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2)
    seconds = [line["seconds"] for line in lines]
    panels = ((left, "percent", "cpu_percent", "gpu_percent", 1), (right, "GiB", "memory_mib", "gpu_memory_mib", 1024))
    for axes, label, cpu, gpu, unit in panels:
        for key, colour, name in ((cpu, BLUE, "CPU"), (gpu, ORANGE, "GPU")):
            if lines and key in lines[0]:
                axes.plot(seconds, [line[key] / unit for line in lines], color=colour, label=name)
        axes.set_xlabel("seconds")
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        if axes.lines:
            axes.legend(frameon=False)
    left.set_title("use of the processors", loc="left", fontsize=10)
    right.set_title("memory", loc="left", fontsize=10)
    return figure


def draw_curves(run: Run):
    """Write loss.png and usage.png into the run."""
    for name, figure in (("loss.png", loss_figure(run)), ("usage.png", usage_figure(run))):
        write_atomic(run.folder / name, _Png(figure).png)
