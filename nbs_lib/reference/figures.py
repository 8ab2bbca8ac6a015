"""The tables of figures in README.md and docs/, filled in from benchmarks/results.

A page holds a table between two comments, which the rendered page does not show:

    <!-- figures: headline -->
    <!-- /figures -->
"""

import re
from collections.abc import Callable
from pathlib import Path

from ..files import ROOT
from .markdown import table
from .results import machine, minutes, older_base, read, share

# comments, because a rendered page does not show them
PLACE = re.compile(r"(<!-- figures: ([\w-]+) -->\n).*?(<!-- /figures -->)", re.S)
MIB_PER_GIB = 1024
# in the order in which a reader meets them; own-images has no rate to compare
RECIPES = ("demo", "demo-long", "cached", "trajectories", "consistency")
FEW_STEPS = ("four-steps", "few-steps")
STAGES = ("ZeRO 0", "ZeRO 1", "ZeRO 2", "ZeRO 3")


def pages() -> list[Path]:
    """Return the pages that may hold figures."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def fill(text: str) -> str:
    """Return a page with its figures filled in. Errors: KeyError for an unknown table."""
    return PLACE.sub(lambda match: f"{match[1]}\n{TABLES[match[2]]()}\n\n{match[3]}", text)


def headline() -> str:
    """Return the four figures of README.md."""
    demo, longer, few_steps = (read(name) for name in ("demo", "demo-long", "few-steps"))
    drawn, few = demo["contenders"], few_steps["compare"]
    # what is offered first, then what it is held against
    names = ("tuned", "guided", "unguided")
    rows = [
        (
            "right caption first: adapter in one pass a step; base with guidance; without",
            "; ".join(share(drawn[name]["caption_first"]) for name in names),
            f"`demo`{older_base(demo)}",
        ),
        (
            "seconds a picture: adapter; base with guidance",
            f"{_seconds(drawn['tuned'])}; {_seconds(drawn['guided'])}",
            f"`demo`{older_base(demo)}",
        ),
        (
            "guidance recovered by a longer training",
            share(longer["guidance_recovered"], "value"),
            f"`demo-long`{older_base(longer)}",
        ),
        (
            "right caption first: adapter in 4 passes; base with guidance in 50",
            f"{share(few['few-steps']['caption_first'])}; {share(few['guided']['caption_first'])}",
            f"`few-steps`{older_base(few_steps)}",
        ),
    ]
    return table(("figure", "value [95 % interval]", "recipe"), rows)


def _seconds(row: dict) -> str:
    return f"{row['seconds']:.3f} [{row['seconds_low']:.3f}, {row['seconds_high']:.3f}]"


def objectives() -> str:
    """Return what each distilling recipe costs and comes to."""
    rows = []
    for name in RECIPES:
        result = read(name)
        command = "make bench" if name.startswith("demo") else "make bench-recipes"
        seconds, row = result["stages"]["train"], result["contenders"]["tuned"]
        rows.append(_recipe_row(name, seconds, row, f"`{command}`{older_base(result)}"))
    result = read("few-steps")
    for name in FEW_STEPS:
        seconds, row = result["trainings"][name]["training_seconds"], result["compare"][name]
        measured = f"`make bench-few-steps`{older_base(result)}"
        rows.append(_recipe_row(name, seconds, row, measured))
    # without it, nobody could say what few passes are worth
    result = read("demo")
    measured = f"`make bench`{older_base(result)}"
    rows.append(_recipe_row("the base, guided", None, result["contenders"]["guided"], measured))
    head = ("recipe", "training", "passes a picture", "right caption first", "measured by")
    return table(head, rows)


def _recipe_row(name: str, seconds: float | None, row: dict, measured: str) -> list[str]:
    rate = row["caption_first"]
    # a base is sampled as it is
    took = "none" if seconds is None else minutes(seconds)
    first = f"{share(rate)} of {rate['count']}"
    return [name, took, f"{row['nfe']:g}", first, measured]


def layers() -> str:
    """Return loss and size by layers and rank."""
    recovered = read("ranks")["recovered"]
    ranks = list(next(iter(recovered.values())))
    rows = []
    for preset, cells in recovered.items():
        row = [f"`{preset}`"]
        for cell in cells.values():
            row.append(f"{cell['loss']:.4f}, {cell['bytes'] / 2**20:.1f} MiB")
        rows.append(row)
    return table(["layers", *(f"rank {rank}" for rank in ranks)], rows)


def speed() -> str:
    """Return examples a second and memory, by machine and base."""
    here = read("train")
    gpu = read("gpu")
    sides = gpu["sides"]
    # another benchmark measures memory, because this one runs several sides in one process
    process = read("machines")["stages"]["embedded"]["ZeRO 0"]["peak_mib"]
    rates = here["examples_per_s"]
    rows = [
        [
            machine(here),
            f"embedded, 2 × {here['batch']}",
            f"{rates['live, bf16']:.0f}",
            f"{rates['cached, bf16']:.0f}",
            f"{process / MIB_PER_GIB:.1f} GiB a process",
            "`make bench-train`, `make bench-machines`",
        ],
        [
            machine(gpu),
            "SD 2.1's size, 8",
            f"{sides['live, ZeRO 0']['examples_per_s']:.0f}",
            f"{sides['cached, ZeRO 0']['examples_per_s']:.0f}",
            f"{sides['live, ZeRO 0']['peak_mib'] / MIB_PER_GIB:.1f} GiB",
            "`make bench-gpu`",
        ],
    ]
    head = ("machine", "base, batch", "live teacher", "cached", "memory", "measured by")
    return table(head, rows)


def stages() -> str:
    """Return the time of a step at each ZeRO stage, as a multiple of that at stage 0."""
    rows = []
    for base, row in read("machines")["stages"].items():
        # multiples, because seconds of different machines say nothing of the stages
        times = [row[stage]["seconds"] / row["ZeRO 0"]["seconds"] for stage in STAGES]
        cells = [f"{time:.2f}" for time in times]
        rows.append([f"{base}, 2 processes on 2 cores", *cells, "`make bench-machines`"])
    sides = read("gpu")["sides"]
    first = sides["cached, ZeRO 0"]["examples_per_s"]
    cells = []
    for stage in STAGES:
        side = sides.get(f"cached, {stage}")
        # not every stage was measured on a GPU
        cells.append(f"{first / side['examples_per_s']:.2f}" if side else "–")
    rows.append(["SD 2.1's size, one H100", *cells, "`make bench-gpu`"])
    return table(["base and machine", *STAGES, "measured by"], rows)


def memory() -> str:
    """Return the memory that a training takes, by base."""
    process = read("machines")["stages"]["embedded"]["ZeRO 0"]["peak_mib"]
    small = read("true-size")["measured_mib"]
    large = read("gpu")["sides"]["live, ZeRO 0"]["peak_mib"]
    gib = [f"{mib / MIB_PER_GIB:.1f} GiB" for mib in (process, small, large)]
    real = f"{gib[1]} at batch 1 with gradient checkpointing, {gib[2]} at batch 8 without"
    rows = [
        ("embedded", f"{gib[0]} a process"),
        ("SD 1.5, SD 2.1 at 512 pixels", f"{real} (SD 2.1's size, random weights)"),
        ("SDXL at 1,024 pixels", "not measured yet"),
        (
            "SD 3.5 medium at 1,024 pixels",
            "6.9 GiB at batch 1 with gradient checkpointing, by plan (`make bench-plans`)",
        ),
    ]
    return table(("base", "memory of a LoRA training"), rows)


TABLES: dict[str, Callable[[], str]] = {
    "headline": headline,
    "objectives": objectives,
    "layers": layers,
    "speed": speed,
    "stages": stages,
    "memory": memory,
}
