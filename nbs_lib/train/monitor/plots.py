"""The curves of a training: loss.png from metrics.jsonl, usage.png from usage.jsonl."""

import io
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from ...files import read_jsonl, write_atomic
from ...images.style import CONTRAST, MAIN, MUTED
from ...run.record import read_metrics
from ...run.run import Run
from .phases import STAGES

POINTS = 600  # of a curve of usage, at most: as many as a picture has room for
REACH = 50  # neighbours on either side that a running mean takes in, at most
UNITS = ((3600, "hours"), (60, "minutes"), (1, "seconds"))
QUANTITIES = (
    ("processes", "cpu_percent", 100, "CPU", "cores"),
    ("processes", "memory_mib", 1024, "memory", "GiB"),
    ("gpus", "percent", 1, "use", "%"),
    ("gpus", "memory_mib", 1024, "memory", "GiB"),
    ("gpus", "power_w", 1, "power", "W"),
)
"""What usage.jsonl tells of processes and GPUs: group, key, what makes one of the unit, name, unit."""
NOUNS = {"processes": ("process", "processes"), "gpus": ("GPU", "GPUs")}


def draw_curves(run: Run):
    """Write loss.png and usage.png into the run."""
    for name, figure in (("loss.png", loss_figure(run)), ("usage.png", usage_figure(run))):
        write_atomic(run.folder / name, png(figure))


def png(figure: Figure) -> bytes:
    figure.savefig(buffer := io.BytesIO(), format="png")
    return buffer.getvalue()


def _bare(axes: Axes):
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def loss_figure(run: Run) -> Figure:
    """The loss by step on a log scale, each logged value and a running mean."""
    # margins and plain numbers: a layout that is worked out, and powers of ten, cost twice the time of all the rest
    figure = Figure((7, 3), dpi=110)
    axes = figure.subplots(gridspec_kw={"left": 0.125, "right": 0.98, "bottom": 0.16, "top": 0.9})
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    _bare(axes)
    lines = read_metrics(run.metrics)
    logged = [line for line in lines if "loss" in line]
    steps, losses = [line["step"] for line in logged], [line["loss"] for line in logged]
    axes.plot(steps, losses, color=MUTED, linewidth=0.8, label="logged")
    smooth = running_mean(losses)
    alone = "o" if len(steps) == 1 else None  # no line goes through one point
    axes.plot(steps, smooth, color=MAIN, linewidth=2, marker=alone, label="running mean")
    held_out = [(line["step"], line["held_out_loss"]) for line in lines if "held_out_loss" in line]
    if held_out:
        axes.plot(
            *zip(*held_out, strict=True),
            color=CONTRAST,
            linewidth=1.5,
            marker="o",
            markersize=4,
            label="held out",
        )
    if losses:
        _logarithmic(axes)
        axes.set_title(f"step {steps[-1]}   running mean {smooth[-1]:.3g}", loc="left", fontsize=10)
        axes.legend(frameon=False)
    return figure


def running_mean(losses: list[float]) -> np.ndarray:
    """Return for each loss the geometric mean of it and its neighbours, as many on either side as there are.

    The axis is logarithmic, where a geometric mean lies in the middle of its points: the usual one would lie above them, as
    one that follows the points would where they fall.
    """
    reach = min(max(2, len(losses) // 20), REACH)
    logs = np.log(np.maximum(losses, np.finfo(float).tiny))
    sums = np.concatenate([[0.0], logs.cumsum()])
    places = np.arange(len(losses))
    first, end = np.maximum(places - reach, 0), np.minimum(places + reach + 1, len(losses))
    return np.exp((sums[end] - sums[first]) / (end - first))


def _logarithmic(axes: Axes):
    """Make the vertical axis logarithmic, with plain numbers at it."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    decades = np.log10(high / low)
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if decades > 3 else (1.0, 2.0, 5.0)))
    if decades < 0.5:  # too few of these would be in sight
        axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def usage_figure(run: Run) -> Figure:
    """The stages of the training and, below them, what it used meanwhile; all that is not training is shaded.

    CPU, memory and power are stacked: a layer for each process or GPU, and their sum as the upper edge. The use of GPUs is
    a thin line for each, and their mean.
    """
    lines = read_jsonl(run.usage)
    looks, end = (
        [line for line in lines if "processes" in line],
        lines[-1]["seconds"] if lines else 1.0,
    )
    unit, name = next((unit, name) for unit, name in UNITS if end >= 5 * unit or unit == 1)
    tables = [(*quantity, *_table(looks, *quantity[:3])) for quantity in QUANTITIES]
    tables = [table for table in tables if table[0] == "processes" or table[-2]]
    figure = Figure((7, 1.8 + 1.2 * len(tables)), dpi=110, layout="constrained")
    top, *rest = figure.subplots(
        1 + len(tables), 1, sharex=True, height_ratios=[0.9] + [1] * len(tables)
    )
    _draw_stages(top, rest, _spans(lines, end), unit)
    seconds = _thinned(np.array([look["seconds"] for look in looks])) / unit
    for axes, (group, key, _, what, measure, names, table) in zip(rest, tables, strict=True):
        _bare(axes)
        axes.set_ylabel(measure)
        if looks:
            _draw_use(
                axes,
                seconds,
                names,
                table,
                CONTRAST if group == "gpus" else MAIN,
                stacked=key != "percent",
            )
            used = table.mean(0) if key == "percent" else table.sum(0)
            of = f"{len(names)} {NOUNS[group][len(names) > 1]}"
            told = f"{what} of {of}: {_short(used.mean())} {measure}, {_short(used.max())} at most"
            axes.set_title(told, loc="left", fontsize=9)
    if looks and (cores := run.read().get("machine", {}).get("cores")):
        machine = _thinned(np.array([look["cpu_percent"] for look in looks])) / 100 * cores
        rest[0].plot(
            seconds,
            machine,
            color=MUTED,
            linewidth=1,
            linestyle="--",
            label=f"the machine, of {cores}",
        )
        rest[0].legend(
            frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 0.93), borderaxespad=0
        )
    for axes in rest:
        axes.set_ylim(bottom=0)
    rest[-1].set_xlabel(name)
    return figure


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _table(
    looks: list[dict[str, Any]], group: str, key: str, scale: float
) -> tuple[list[str | int], np.ndarray]:
    """A quantity's names of processes or GPUs, and its values [names, looks], 0 where one was not there."""
    parts = [
        {part.get("rank", i): part for i, part in enumerate(look.get(group, []))} for look in looks
    ]
    names = list(
        dict.fromkeys(name for each in parts for name, part in each.items() if key in part)
    )
    return names, np.array(
        [[each.get(name, {}).get(key, 0.0) for each in parts] for name in names]
    ) / scale


def _thinned(values: np.ndarray) -> np.ndarray:
    """Values [..., looks] as means of POINTS groups of looks, where there are more of them."""
    if values.shape[-1] <= POINTS:
        return values
    return np.stack([group.mean(-1) for group in np.array_split(values, POINTS, axis=-1)], -1)


def _spans(lines: list[dict[str, Any]], end: float) -> list[tuple[str, float, float]]:
    """Each stage with the seconds of its begin and its end; one that was cut off ends where another begins."""
    begun = [(line["stage"], line["seconds"]) for line in lines if "stage" in line]
    ends = [seconds for _, seconds in begun[1:]] + [end]
    return [(stage, start, stop) for (stage, start), stop in zip(begun, ends, strict=True) if stage]


def _draw_stages(top: Axes, rest: list[Axes], spans: list[tuple[str, float, float]], unit: float):
    """A row for each stage; in the panels below, shades. unit: of the time axis, in seconds."""
    _bare(top)
    rows = [stage for stage in STAGES if stage in {span[0] for span in spans}]
    top.set_yticks(range(len(rows)), rows, fontsize=8)
    top.set_ylim(len(rows) - 0.4, -0.6)
    for stage, start, stop in spans:
        place, colour = (start / unit, (stop - start) / unit), MAIN if stage == "train" else MUTED
        # the edge shows what is too short to be seen otherwise
        top.broken_barh(
            [place],
            (rows.index(stage) - 0.35, 0.7),
            facecolor=colour,
            edgecolor=colour,
            linewidth=1,
        )
        for axes in rest if stage != "train" else ():
            axes.axvspan(place[0], sum(place), color=MUTED, alpha=0.2, linewidth=0)
    if spans:
        trained = sum(stop - start for stage, start, stop in spans if stage == "train")
        whole = sum(stop - start for _, start, stop in spans)
        top.set_title(f"stages: {trained:.0f} of {whole:.0f} s in train", loc="left", fontsize=9)


def _draw_use(
    axes: Axes, seconds: np.ndarray, names: list, table: np.ndarray, colour: str, stacked: bool
):
    """Values [names, looks] as layers and their sum, or as lines and their mean. Layers that are thick enough are named."""
    table = _thinned(table)
    if not stacked:
        axes.plot(seconds, table.T, color=colour, linewidth=0.6, alpha=0.4)
        axes.plot(seconds, table.mean(0), color=colour, linewidth=1.8)
        return
    edges = np.cumsum(table, 0)
    for i, name in enumerate(names):
        shade, alpha = (MUTED, 0.7) if name == "kernel" else (colour, 0.15 + 0.2 * (i % 2))
        axes.fill_between(
            seconds, edges[i] - table[i], edges[i], color=shade, alpha=alpha, linewidth=0
        )
        if np.median(table[i]) > 0.15 * edges[-1].max():
            kind = name if name == "kernel" else f"{'GPU' if colour == CONTRAST else 'rank'} {name}"
            height = float(np.median(edges[i] - table[i] / 2))
            axes.annotate(
                kind, (1.005, height), xycoords=("axes fraction", "data"), fontsize=8, va="center"
            )
    axes.plot(seconds, edges[-1], color=colour, linewidth=1.5)
