"""The loss curve of a training, from metrics.jsonl."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from ...images.style import CONTRAST, MAIN, MUTED
from ...run.record import read_metrics
from ...run.run import Run

MAX_REACH = 50  # neighbours on either side in a running mean


def style_axes(axes: Axes):
    """Show only the axes themselves and a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def loss_figure(run: Run, weights_step: int | None = None) -> Figure:
    """Return the loss by step on a log scale, each logged value and a running mean.

    weights_step: the step of the saved weights; before there are any, the best one is marked.
    """
    # margins and plain numbers: a computed layout, and powers of ten, take twice the time of the
    # rest
    figure = Figure((7, 3), dpi=110)
    axes = figure.subplots(gridspec_kw={"left": 0.125, "right": 0.98, "bottom": 0.16, "top": 0.9})
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    style_axes(axes)
    lines = read_metrics(run.metrics)
    steps, losses = _curve(lines, "loss")
    axes.plot(steps, losses, color=MUTED, linewidth=0.8, label="logged")
    smooth = running_mean(losses)
    # no line goes through one point
    marker = "o" if len(steps) == 1 else None
    axes.plot(
        steps,
        smooth,
        color=MAIN,
        linewidth=2,
        marker=marker,
        label="running mean",
    )
    held_out = _curve(lines, "held_out_loss")
    if held_out[0]:
        style = {"linewidth": 1.5, "marker": "o", "markersize": 4}
        axes.plot(*held_out, color=CONTRAST, label="held out", **style)
    _mark_weights(axes, lines, weights_step)
    if losses:
        _set_log_scale(axes)
        axes.set_title(f"step {steps[-1]}   running mean {smooth[-1]:.3g}", loc="left", fontsize=10)
        axes.legend(frameon=False)
    return figure


def _mark_weights(axes: Axes, lines: list[dict], weights_step: int | None):
    """Draw a line at the step of the saved weights, or of the best ones so far."""
    step = weights_step
    label = f"saved weights, of step {step}"
    if step is None:
        _, best_steps = _curve(lines, "best_step")
        if not best_steps:
            return
        step = best_steps[-1]
        label = f"best so far, step {step}"
    axes.axvline(step, color=MUTED, linestyle="--", linewidth=1, label=label)


def _curve(lines: list[dict], name: str) -> tuple[list[int], list[float]]:
    """Return the steps and the values of the lines that have a number of this name."""
    lines = [line for line in lines if name in line]
    return [line["step"] for line in lines], [line[name] for line in lines]


def running_mean(losses: list[float]) -> np.ndarray:
    """Return for each loss the geometric mean of it and equally many neighbours on each side."""
    # the axis is logarithmic, where a geometric mean lies in the middle of its points; the
    # arithmetic one lies above them, and so does one that follows falling points
    reach = min(max(2, len(losses) // 20), MAX_REACH)
    # a loss of 0 has no logarithm
    logs = np.log(np.maximum(losses, np.finfo(float).tiny))
    sums = np.concatenate([[0.0], logs.cumsum()])
    index = np.arange(len(losses))
    first = np.maximum(index - reach, 0)
    end = np.minimum(index + reach + 1, len(losses))
    return np.exp((sums[end] - sums[first]) / (end - first))


def _set_log_scale(axes: Axes):
    """Make the vertical axis logarithmic, with plain numbers at it."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    decades = np.log10(high / low)
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if decades > 3 else (1.0, 2.0, 5.0)))
    # too few of these would be visible
    if decades < 0.5:
        axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    axes.yaxis.set_minor_locator(NullLocator())
