"""The command `sweep`."""

from typing import Annotated, Any

import typer

from .app import AsJson, Recipe, app, exit_with, print_result, report_errors, status_printer
from .run import On, Seed, print_job

VALUES_HELP = "Values of a parameter: 4,8,16 or 0..2; or one, for all runs."
Values = Annotated[list[str], typer.Option("-p", metavar="STAGE.NAME=VALUES", help=VALUES_HELP)]
SWEEP_HELP = "Name of the sweep; its runs' names begin with it."
SweepName = Annotated[str, typer.Option(help=SWEEP_HELP)]
METRIC_HELP = "Number to compare the runs by, e.g. rate; else the held-out loss."
Metric = Annotated[str, typer.Option(help=METRIC_HELP)]


@app.command()
def sweep(
    recipe: Recipe,
    p: Values,
    name: SweepName = "",
    jobs: Annotated[int, typer.Option(help="Runs at a time.")] = 1,
    metric: Metric = "",
    seed: Seed = None,
    on: On = "",
    as_json: AsJson = False,
):
    """Run a recipe with every combination of several values: a table, a plot, the best run."""
    from ..pipeline import sweep as run_sweep
    from ..pipeline.notebook import StageError

    with report_errors(StageError):
        if on:
            return _write_sweep_job(recipe, p, name, jobs, seed, on, as_json)
        say = status_printer(as_json)
        _print_sweep(run_sweep(recipe, p, name or None, jobs, metric, seed, say), as_json)


def _print_sweep(result: Any, as_json: bool):
    from ..pipeline.runs.table import align_columns, columns
    from ..pipeline.sweep.sweep import as_dict

    rows = []
    for row in result.rows:
        # the swept values, even of a run whose record does not hold them
        rows.append(row | {name: row[f"swept {name}"] for name in result.swept})
    names = ["name", *result.swept, "status", result.metric, "seconds"]
    lines = align_columns(columns(rows, names))
    lines.append(f"best by {result.metric}: {result.best or 'none is done'}")
    lines.append(f"table and plot: {result.folder / 'sweep.html'}")
    print_result(as_dict(result), lines, as_json)
    if result.failed:
        # after the table, which shows what is done
        count = f"{len(result.failed)} of {len(result.rows)} runs are not done"
        exit_with(f"{count}: {', '.join(result.failed)}; give the same command again", 1)


def _write_sweep_job(
    recipe: str,
    overrides: list[str],
    name: str,
    jobs: int,
    seed: int | None,
    on: str,
    as_json: bool,
):
    """Write a sweep's job for a cluster."""
    from ..config.validation import ParameterError
    from ..pipeline.cluster import PORT, SHARED_STAGES, Job, node_count
    from ..pipeline.paths import run_folder
    from ..pipeline.recipes import configs
    from ..pipeline.sweep.sweep import plan_sweep, sweep_name

    # as for one run: the job sets the port
    overrides = [*(f"{stage}.master_port={PORT}" for stage in SHARED_STAGES), *overrides]
    path, _, members = plan_sweep(recipe, overrides, name or None, jobs, seed)
    folder = run_folder(sweep_name(path, name or None))
    needs = set()
    for member in members:
        stages = configs(str(path), folder, member.parameters, seed)
        needs.add((node_count(stages), stages["train"].num_processes))
    if len(needs) > 1:
        # a cluster gives all indices of an array the same resources
        parameters = "train.num_nodes and train.num_processes"
        raise ParameterError(f"sweep: an array's runs all take the same {parameters}")
    options = [member.options() for member in members]
    after = "when all are done, the same command without --on makes the table"
    print_job(on, Job(folder.name, folder, path, options, *needs.pop(), jobs), [after], as_json)
