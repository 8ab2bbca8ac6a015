"""The phases and the usage of a training as a figure, from usage.jsonl."""

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...files import read_jsonl
from ...images.style import CONTRAST, MAIN, MUTED
from ...run.run import Run
from .loss_plot import style_axes
from .phases import PHASES

MAX_POINTS = 600  # of a curve of usage: a picture has room for no more
TIME_UNITS = ((3600, "hours"), (60, "minutes"), (1, "seconds"))
NOUNS = {"processes": ("process", "processes"), "gpus": ("GPU", "GPUs")}


class Quantity(NamedTuple):
    """A quantity in usage.jsonl.

    group, key: where a sample has it.
    scale: number that makes one unit.
    """

    group: str
    key: str
    scale: float
    name: str
    unit: str


class Series(NamedTuple):
    """The values [members, samples] of a quantity; members: names of processes or GPUs."""

    quantity: Quantity
    members: list[str | int]
    values: np.ndarray


class Phase(NamedTuple):
    """A phase of the training, with the seconds of its start and its end."""

    name: str
    start: float
    end: float


QUANTITIES = (
    Quantity("processes", "cpu_percent", 100, "CPU", "cores"),
    Quantity("processes", "memory_mib", 1024, "memory", "GiB"),
    Quantity("gpus", "percent", 1, "use", "%"),
    Quantity("gpus", "memory_mib", 1024, "memory", "GiB"),
    Quantity("gpus", "power_w", 1, "power", "W"),
)


def usage_figure(run: Run) -> Figure:
    """Return the phases of the training and, below them, its usage; other phases are shaded.

    CPU, memory and power are stacked: a layer for each process or GPU, with their sum as the upper
    edge. The use of GPUs is a thin line for each, and their mean.
    """
    # half a line that a killed process left is skipped
    rows = read_jsonl(run.usage)
    samples = [row for row in rows if "processes" in row]
    end = rows[-1]["seconds"] if rows else 1.0
    unit, unit_name = next((s, name) for s, name in TIME_UNITS if end >= 5 * s or s == 1)
    all_series = [_series(samples, quantity) for quantity in QUANTITIES]
    # the panels of the processes are there even without samples
    all_series = [x for x in all_series if x.quantity.group == "processes" or x.members]
    n_panels = len(all_series)
    figure = Figure((7, 1.8 + 1.2 * n_panels), dpi=110, layout="constrained")
    heights = [0.9] + [1] * n_panels
    top, *panels = figure.subplots(1 + n_panels, 1, sharex=True, height_ratios=heights)
    _draw_phases(top, panels, _phases(rows, end), unit)
    seconds = _thinned(np.array([sample["seconds"] for sample in samples])) / unit
    for axes, series in zip(panels, all_series, strict=True):
        style_axes(axes)
        axes.set_ylabel(series.quantity.unit)
        if samples:
            _draw_series(axes, seconds, series)
    cores = run.read().get("machine", {}).get("cores")
    if samples and cores:
        percent = np.array([sample["cpu_percent"] for sample in samples])
        _draw_machine(panels[0], seconds, _thinned(percent) / 100 * cores, cores)
    for axes in panels:
        axes.set_ylim(bottom=0)
    panels[-1].set_xlabel(unit_name)
    return figure


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _series(samples: list[dict], quantity: Quantity) -> Series:
    """Return the values of a quantity, 0 where a process or GPU was not there."""
    rows: dict[str | int, np.ndarray] = {}
    for column, sample in enumerate(samples):
        for index, entry in enumerate(sample.get(quantity.group, [])):
            if quantity.key in entry:
                # a GPU has no rank: it is named by its index
                row = rows.setdefault(entry.get("rank", index), np.zeros(len(samples)))
                row[column] = entry[quantity.key]
    return Series(quantity, list(rows), np.array(list(rows.values())) / quantity.scale)


def _thinned(values: np.ndarray) -> np.ndarray:
    """Return values [..., samples] as means of MAX_POINTS groups, if there are more samples."""
    # a day of samples takes long to draw, and shows no more
    if values.shape[-1] <= MAX_POINTS:
        return values
    groups = np.array_split(values, MAX_POINTS, axis=-1)
    return np.stack([group.mean(-1) for group in groups], -1)


def _phases(rows: list[dict], end: float) -> list[Phase]:
    """Return the phases; one that was cut off ends where another begins."""
    starts = [(row["stage"], row["seconds"]) for row in rows if "stage" in row]
    ends = [seconds for _, seconds in starts[1:]] + [end]
    phases = [Phase(*start, stop) for start, stop in zip(starts, ends, strict=True)]
    return [phase for phase in phases if phase.name]


def _draw_phases(top: Axes, panels: list[Axes], phases: list[Phase], unit: float):
    """Draw a row for each phase, and shades into the panels. unit: of the time axis, in seconds."""
    style_axes(top)
    # in the order in which a training goes through them
    present = {phase.name for phase in phases}
    names = [name for name in PHASES if name in present]
    top.set_yticks(range(len(names)), names, fontsize=8)
    top.set_ylim(len(names) - 0.4, -0.6)
    for phase in phases:
        training = phase.name == "train"
        colour = MAIN if training else MUTED
        start = phase.start / unit
        length = (phase.end - phase.start) / unit
        # the edge makes very short phases visible
        style = {"facecolor": colour, "edgecolor": colour, "linewidth": 1}
        top.broken_barh([(start, length)], (names.index(phase.name) - 0.35, 0.7), **style)
        if not training:
            for axes in panels:
                axes.axvspan(start, start + length, color=MUTED, alpha=0.2, linewidth=0)
    if phases:
        total = sum(phase.end - phase.start for phase in phases)
        trained = sum(phase.end - phase.start for phase in phases if phase.name == "train")
        title = f"stages: {trained:.0f} of {total:.0f} s in train"
        top.set_title(title, loc="left", fontsize=9)


def _draw_series(axes: Axes, seconds: np.ndarray, series: Series):
    """Draw layers and their sum, or lines and their mean, and describe them in the title."""
    quantity = series.quantity
    colour = CONTRAST if quantity.group == "gpus" else MAIN
    values = _thinned(series.values)
    if quantity.key == "percent":
        # a sum of percents would say nothing
        total = series.values.mean(0)
        axes.plot(seconds, values.T, color=colour, linewidth=0.6, alpha=0.4)
        axes.plot(seconds, values.mean(0), color=colour, linewidth=1.8)
    else:
        total = series.values.sum(0)
        _draw_layers(axes, seconds, series.members, values, colour)
    count = len(series.members)
    noun = NOUNS[quantity.group][count > 1]
    mean = f"{_short(total.mean())} {quantity.unit}"
    title = f"{quantity.name} of {count} {noun}: {mean}, {_short(total.max())} at most"
    axes.set_title(title, loc="left", fontsize=9)


def _draw_layers(
    axes: Axes,
    seconds: np.ndarray,
    members: list[str | int],
    values: np.ndarray,
    colour: str,
):
    """Draw values [members, samples] on top of each other; thick layers are named."""
    edges = np.cumsum(values, 0)
    for i, name in enumerate(members):
        kernel = name == "kernel"
        shade = MUTED if kernel else colour
        alpha = 0.7 if kernel else 0.15 + 0.2 * (i % 2)
        lower = edges[i] - values[i]
        axes.fill_between(seconds, lower, edges[i], color=shade, alpha=alpha, linewidth=0)
        # a name has no room beside a thinner layer
        if np.median(values[i]) > 0.15 * edges[-1].max():
            kind = "GPU" if colour == CONTRAST else "rank"
            height = float(np.median(edges[i] - values[i] / 2))
            axes.annotate(
                name if kernel else f"{kind} {name}",
                (1.005, height),
                xycoords=("axes fraction", "data"),
                fontsize=8,
                va="center",
            )
    axes.plot(seconds, edges[-1], color=colour, linewidth=1.5)


def _draw_machine(axes: Axes, seconds: np.ndarray, used: np.ndarray, cores: int):
    """Draw the cores that the whole machine used."""
    label = f"the machine, of {cores}"
    axes.plot(seconds, used, color=MUTED, linewidth=1, linestyle="--", label=label)
    position = {"loc": "lower right", "bbox_to_anchor": (1, 0.93), "borderaxespad": 0}
    axes.legend(frameon=False, fontsize=8, **position)
