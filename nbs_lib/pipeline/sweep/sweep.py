"""A recipe with several values of some parameters: a run for each combination, a table, a plot, the best of them.

    outputs/SWEEP/            sweep.json, sweep.html, sweep.png
    outputs/SWEEP.rank-4.seed-0/ …    the members, runs like any other

A member's name says its values, so a sweep that is given again finds what is done and does only what is missing.
"""

import itertools
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...config.validation import ParameterError
from ...files import value_hash, write_atomic
from ...run.record import is_number
from ...run.run import RECIPE_LOCK, Run
from ..paths import run_folder
from ..recipes import Given, configs, find_recipe, is_text, read_yaml, split_override
from ..runs.table import Row, resolve_name, run_values
from .jobs import SweepJob, run_jobs

MOST = 1000
"""Members of a sweep: more were most likely a slip."""
HIGHER = ("rate", "recovered", "ssim", "psnr", "clip_score", "per_s", "held_at")
"""Words in the name of a number that is better the larger it is; of all others the smallest is best."""
RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)")


@dataclass(frozen=True)
class Sweep:
    """What a sweep came to. swept: the values of each parameter; rows: of each member, in order; best: a member's name."""

    folder: Path
    recipe: str
    swept: dict[str, list]
    members: list[SweepJob]
    rows: list[Row]
    metric: str
    best: str | None

    @property
    def failed(self) -> list[str]:
        return [each["name"] for each in self.rows if each["status"] != "done"]


def sweep(
    recipe: str,
    parameters: Given,
    name: str | None = None,
    jobs: int = 1,
    metric: str = "",
    seed: int | None = None,
    say: Callable[[str], None] = print,
) -> Sweep:
    """Run every combination of the swept parameters' values, `jobs` of them at a time; the table and the plot.

    parameters: {"train.rank": [4, 8, 16], "train.steps": 50}, or as on the command line, ["train.rank=4,8,16"]; metric:
    what the members are compared by, the held-out loss if left out. A member that fails does not stop the others.
    Errors: ParameterError before anything starts, but for a metric that none of them turns out to have, after all is written;
    RunError where another process works on the same sweep.
    """
    path, swept, members = plan_sweep(recipe, parameters, name, jobs, seed)
    run = Run(run_folder(sweep_name(path, name)))
    with run.exclusive(RECIPE_LOCK):
        failed = run_jobs(path, members, jobs, say)
        return write_sweep(run.folder, path.stem, swept, members, failed, metric)


def sweep_name(recipe: Path, name: str | None) -> str:
    return name or f"{recipe.stem}-sweep"


def plan_sweep(
    recipe: str, given: Given, name: str | None, jobs: int = 1, seed: int | None = None
) -> tuple[Path, dict[str, list], list[SweepJob]]:
    """The recipe's file, the swept values, and the members, each checked. Errors: ParameterError."""
    if jobs < 1:
        raise ParameterError(f"--jobs: given {jobs}; allowed is a whole number from 1")
    path = find_recipe(recipe)
    fixed, swept = axes(given)
    count = 1
    for values in swept.values():
        count *= len(values)
    if count > MOST:
        raise ParameterError(f"sweep: {count} members; allowed are {MOST}")
    members, called = [], sweep_name(path, name)
    for values in itertools.product(*swept.values()):
        own = dict(zip(swept, values, strict=True))
        stages = configs(str(path), run_folder(called), fixed | own, seed)
        own = {
            full: getattr(stages[stage], short)
            for full in swept
            for stage, short in [full.split(".")]
        }  # with their types
        members.append(SweepJob(member_name(called, own), fixed | own, own, seed))
        run_folder(members[-1].name)
    if len({member.name for member in members}) < len(members):
        raise ParameterError("sweep: a value is given twice for one parameter")
    return (
        path,
        {full: _different([member.own[full] for member in members]) for full in swept},
        members,
    )


def _different(values: list) -> list:
    return [value for place, value in enumerate(values) if value not in values[:place]]


def axes(given: Given) -> tuple[dict[str, Any], dict[str, list]]:
    """The parameters with one value, and those with several. Errors: ParameterError where none has."""
    fixed, swept = {}, {}
    for full, values in given.items() if isinstance(given, Mapping) else map(_listed, given):
        if full in fixed or full in swept:
            raise ParameterError(f"sweep: {full} is given twice; give all its values at once")
        several = isinstance(values, list | tuple | range)
        if several and _is_list(full):  # then a list is one value, and several are lists of lists
            several = bool(values) and isinstance(values[0], list)
        if several and len(values) != 1:
            swept[full] = list(values)
        else:
            fixed[full] = values[0] if several else values
    if not swept or not all(swept.values()):
        raise ParameterError(
            "sweep: no parameter has several values; allowed is -p train.rank=4,8,16 or -p train.seed=0..2"
        )
    return fixed, swept


def _is_list(full: str) -> bool:
    from ...config import STAGES

    stage, name, _ = split_override(f"{full}=")
    return str(getattr(STAGES[stage], "__annotations__", {}).get(name, "")).startswith("list")


def _listed(override: str) -> tuple[str, list]:
    """`train.rank=4,8`, `train.seed=0..2`, `compare.seeds=[0, 1],[2, 3]` -> the name and its values."""
    stage, name, text = split_override(override)
    if match := RANGE.fullmatch(text.strip()):
        first, last = int(match[1]), int(match[2])
        if not first <= last < first + MOST:
            raise ParameterError(
                f"-p {override}: allowed is FIRST..LAST, LAST not below FIRST, {MOST} values at most"
            )
        return f"{stage}.{name}", list(range(first, last + 1))
    if is_text(stage, name):
        parts = split_values(text, lists=False)
        return f"{stage}.{name}", [_unquoted(part.strip()) for part in parts] if len(
            parts
        ) > 1 else parts
    parts = split_values(text)
    return f"{stage}.{name}", [
        read_yaml(part, f"-p {override}") if part.strip() else part for part in parts
    ]


def split_values(text: str, lists: bool = True) -> list[str]:
    """At commas outside of quotes, which open before a value alone: an apostrophe is none; and outside of brackets, where
    values may be lists."""
    parts, begin, depth, quote = [], 0, 0, ""
    for place, sign in enumerate(text):
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "\"'" and text[:place].rstrip()[-1:] in ("", ",", "["):
            quote = sign
        elif lists and sign in "[]":
            depth += 1 if sign == "[" else -1
        elif sign == "," and depth <= 0:
            parts.append(text[begin:place])
            begin = place + 1
    return [*parts, text[begin:]]


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


def member_name(sweep: str, values: dict[str, Any]) -> str:
    """The sweep's name and the values; what cannot stand in a name is left out, and a hash tells it apart."""
    plain = [full.partition(".")[2] for full in values]
    parts = []
    for full, value in values.items():
        short = full.partition(".")[2]
        key = short if plain.count(short) == 1 else full.replace(".", "-")
        text = value if isinstance(value, str) else json.dumps(value)
        slug = re.sub(r"[^\w.-]+", "_", text)[:24]
        parts.append(
            f"{key}-{slug}"
            if slug == text
            else f"{key}-{slug.strip('._-')}-{value_hash(value)[:6]}"
        )
    return ".".join([sweep, *parts])


def write_sweep(
    folder: Path,
    recipe: str,
    swept: dict[str, list],
    members: list[SweepJob],
    failed: set[str],
    metric: str = "",
) -> Sweep:
    """The table and the plot of what the members have come to. Errors: ParameterError for a metric that none of those that
    are done has; by then all is written, by the usual one."""
    rows = [
        run_values(Run(run_folder(member.name)))
        | {f"swept {full}": value for full, value in member.own.items()}
        | ({"status": "failed"} if member.name in failed else {})
        for member in members
    ]
    chosen, wrong = metric_of(rows), None
    try:
        chosen = metric_of(rows, metric)
    except ParameterError as refused:
        wrong = refused
    done = [each for each in rows if each["status"] == "done" and is_number(each.get(chosen))]
    higher = any(word in chosen for word in HIGHER)
    best = (max if higher else min)(done, key=lambda each: each[chosen])["name"] if done else None
    told = Sweep(folder, recipe, swept, members, rows, chosen, best)
    from .report import write_pages

    write_pages(told)
    shown = [
        {
            "name": member.name,
            "values": member.own,
            "status": each["status"],
            chosen: each.get(chosen),
        }
        for member, each in zip(members, rows, strict=True)
    ]
    summary = {"recipe": recipe, "swept": swept, "metric": chosen, "best": best, "members": shown}
    write_atomic(folder / "sweep.json", json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
    if wrong and best:  # where none is done, why they failed is what is to be said
        raise wrong
    return told


def metric_of(rows: list[Row], metric: str = "") -> str:
    """The full name of the metric; without one the held-out loss, or the loss where nothing was held out."""
    names = sorted({name for each in rows for name, value in each.items() if is_number(value)})
    if metric:
        return resolve_name(metric, names, "--metric")
    return next((name for name in ("held_out", "loss") if name in names), "seconds")


def as_dict(told: Sweep) -> dict[str, Any]:
    """A sweep as plain values."""
    plain = {
        "folder": str(told.folder),
        "recipe": told.recipe,
        "swept": told.swept,
        "metric": told.metric,
        "best": told.best,
    }
    return plain | {
        "failed": told.failed,
        "members": [asdict(member) for member in told.members],
        "rows": told.rows,
    }
