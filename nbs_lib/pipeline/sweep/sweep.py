"""A sweep: a run for each combination of several parameters' values, a table, a plot, the best run.

    outputs/SWEEP/                  sweep.json, sweep.html, sweep.png
    outputs/SWEEP.rank-4.seed-0/    the members, runs like any other

A member's name holds its values, so a repeated sweep finds its finished members and executes only
the missing ones.
"""

import itertools
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

from ...config.validation import ParameterError
from ...files import value_hash, write_atomic
from ...run.record import is_number
from ...run.run import RECIPE_LOCK, Run
from ..paths import run_folder
from ..progress import Say
from ..recipes import Overrides, configs, find_recipe
from ..runs.query import resolve_name
from ..runs.table import Row, run_values
from .jobs import SweepJob, run_jobs
from .values import MAX_MEMBERS, split_parameters

# words in the name of a number that is better the larger it is; of any other the smallest is
LARGER_IS_BETTER = (
    "rate",
    "recovered",
    "nearer",
    "ssim",
    "clip_score",
    "per_s",
    "held_at",
)


@dataclass(frozen=True)
class Sweep:
    """The result of a sweep.

    folder: of the table and the plot
    recipe: name of the recipe
    swept: values of each swept parameter
    members: the runs
    rows: values of each member, in their order
    metric: full name of the number the members are compared by
    best: name of the best member, None if no member is done
    """

    folder: Path
    recipe: str
    swept: dict[str, list]
    members: list[SweepJob]
    rows: list[Row]
    metric: str
    best: str | None

    @property
    def failed(self) -> list[str]:
        """Names of the members that are not done."""
        return [row["name"] for row in self.rows if row["status"] != "done"]


def sweep(
    recipe: str,
    parameters: Overrides,
    name: str | None = None,
    jobs: int = 1,
    metric: str = "",
    seed: int | None = None,
    say: Say = print,
) -> Sweep:
    """Run a recipe with every combination of the swept values, and write the table and the plot.

    A member that fails does not stop the others.

    parameters: {"train.rank": [4, 8, 16], "train.steps": 50} or ["train.rank=4,8,16"]
    name: the sweep's, by default RECIPE-sweep
    jobs: members to run at the same time
    metric: number to compare the members by, by default the held-out loss
    seed: sets every seed
    say: prints lines about the progress

    Errors: ParameterError before anything starts, except for a metric that no member turns out to
    have: that is raised after all is written; RunError if another process works on the same sweep.
    """
    path, swept, members = plan_sweep(recipe, parameters, name, jobs, seed)
    run = Run(run_folder(sweep_name(path, name)))
    # the sweep has a folder of its own, so it is locked like a run
    with run.exclusive(RECIPE_LOCK):
        failed = run_jobs(path, members, jobs, say)
        return write_sweep(run.folder, path.stem, swept, members, failed, metric)


def sweep_name(recipe: Path, name: str | None) -> str:
    """Return the name of a sweep."""
    return name or f"{recipe.stem}-sweep"


def plan_sweep(
    recipe: str,
    overrides: Overrides,
    name: str | None,
    jobs: int = 1,
    seed: int | None = None,
) -> tuple[Path, dict[str, list], list[SweepJob]]:
    """Return the recipe's file, the swept values and the members, all checked.

    Errors: ParameterError.
    """
    if jobs < 1:
        raise ParameterError(f"--jobs: given {jobs}; allowed is a whole number from 1")
    path = find_recipe(recipe)
    fixed, swept = split_parameters(overrides)
    count = math.prod(map(len, swept.values()))
    if count > MAX_MEMBERS:
        raise ParameterError(f"sweep: {count} members; allowed are {MAX_MEMBERS}")
    title = sweep_name(path, name)
    members = []
    typed = {full_name: [] for full_name in swept}
    for combination in itertools.product(*swept.values()):
        parameters = fixed | dict(zip(swept, combination, strict=True))
        stages = configs(str(path), run_folder(title), parameters, seed)
        combined = {}
        for full_name, values in typed.items():
            stage, _, short_name = full_name.partition(".")
            # the config's value, so that `1e-4` and `0.0001` are one value with one name
            combined[full_name] = getattr(stages[stage], short_name)
            if combined[full_name] not in values:
                values.append(combined[full_name])
        members.append(SweepJob(member_name(title, combined), parameters, combined, seed))
        # refuses a name that is too long
        run_folder(members[-1].name)
    if len({member.name for member in members}) < len(members):
        raise ParameterError("sweep: a value is given twice for one parameter")
    return path, typed, members


def member_name(sweep: str, values: dict) -> str:
    """Return the sweep's name with the values of a member.

    A hash replaces what a folder's name cannot hold.
    """
    parts = [sweep]
    short_names = [full_name.partition(".")[2] for full_name in values]
    for full_name, short_name in zip(values, short_names, strict=True):
        unique = short_names.count(short_name) == 1
        label = short_name if unique else full_name.replace(".", "-")
        value = values[full_name]
        text = value if isinstance(value, str) else json.dumps(value)
        # a long text would make a name too long
        slug = re.sub(r"[^\w.-]+", "_", text)[:24]
        if slug != text:
            slug = f"{slug.strip('._-')}-{value_hash(value)[:6]}"
        parts.append(f"{label}-{slug}")
    return ".".join(parts)


def write_sweep(
    folder: Path,
    recipe: str,
    swept: dict[str, list],
    members: list[SweepJob],
    failed: set[str],
    metric: str = "",
) -> Sweep:
    """Write the table and the plot of the members' results.

    failed: names of the members that failed now; the record of one may be an earlier success's

    Errors: ParameterError for a metric that no finished member has. All is written before, compared
    by the default metric.
    """
    from .report import write_pages

    rows = [_member_row(member, failed) for member in members]
    failure = None
    try:
        chosen = choose_metric(rows, metric)
    except ParameterError as unknown:
        failure = unknown
        chosen = choose_metric(rows)
    best = _best_member(rows, chosen)
    result = Sweep(folder, recipe, swept, members, rows, chosen, best)
    write_pages(result)
    write_atomic(folder / "sweep.json", _summary(result))
    # if no member is done, the reasons for that matter more than the metric
    if failure and best:
        raise failure
    return result


def _member_row(member: SweepJob, failed: set[str]) -> Row:
    row = run_values(Run(run_folder(member.name)))
    row |= {f"swept {name}": value for name, value in member.swept.items()}
    return row | ({"status": "failed"} if member.name in failed else {})


def _best_member(rows: list[Row], metric: str) -> str | None:
    finished = [row for row in rows if row["status"] == "done" and is_number(row.get(metric))]
    larger_is_better = any(word in metric for word in LARGER_IS_BETTER)
    choose = max if larger_is_better else min
    best = choose(finished, key=lambda row: row[metric], default={})
    return best.get("name")


def choose_metric(rows: list[Row], metric: str = "") -> str:
    """Return the full name of the metric; by default the held-out loss, else the loss.

    Errors: ParameterError.
    """
    # text has no better or worse
    names = {name for row in rows for name, value in row.items() if is_number(value)}
    if metric:
        return resolve_name(metric, sorted(names), "--metric")
    return next((name for name in ("held_out", "loss") if name in names), "seconds")


def _summary(sweep: Sweep) -> str:
    members = []
    for member, row in zip(sweep.members, sweep.rows, strict=True):
        fields = {"name": member.name, "values": member.swept, "status": row["status"]}
        members.append(fields | {sweep.metric: row.get(sweep.metric)})
    names = ("recipe", "swept", "metric", "best")
    summary = {name: getattr(sweep, name) for name in names} | {"members": members}
    return json.dumps(summary, indent=1, ensure_ascii=False) + "\n"


def as_dict(sweep: Sweep) -> dict:
    """Return a sweep as plain values, for `onepass sweep --json`."""
    names = ("recipe", "swept", "metric", "best", "failed", "rows")
    return {name: getattr(sweep, name) for name in names} | {
        "folder": str(sweep.folder),
        "members": [member.as_dict() for member in sweep.members],
    }
