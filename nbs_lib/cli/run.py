"""Commands that do: run, resume, sweep, verify."""

from dataclasses import asdict
from typing import Annotated

import typer

from .app import (
    AsJson,
    DryRun,
    Recipe,
    RunName,
    app,
    exit_with,
    print_result,
    report_errors,
    status_printer,
)

Parameters = Annotated[
    list[str] | None,
    typer.Option(
        "-p", metavar="STAGE.NAME=VALUE", help="A parameter, e.g. -p train.steps=50; also several."
    ),
]
Name = Annotated[
    str, typer.Option(help="Name of the run, a folder in outputs/; the recipe's name if left out.")
]
Seed = Annotated[
    int | None, typer.Option(help="Every seed: of the data, the training and the pictures.")
]
On = Annotated[
    str,
    typer.Option(
        metavar="slurm|k8s", help="Write a job script or manifest instead, to be submitted by you."
    ),
]


@app.command()
def run(
    recipe: Recipe,
    p: Parameters = None,
    name: Name = "",
    start: Annotated[
        str, typer.Option("--from", metavar="STAGE", help="Do this stage and those after it anew.")
    ] = "",
    seed: Seed = None,
    dry_run: DryRun = False,
    on: On = "",
    as_json: AsJson = False,
):
    """Run a recipe: prepare, train, compare. Run again, it goes on where it stopped, and keeps what is unchanged."""
    from ..pipeline import run as run_recipe
    from ..pipeline.notebook import StageError

    with report_errors(StageError):
        if dry_run or on:
            _not_now(recipe, p or [], name, start, seed, dry_run, on, as_json)
        elif done := run_recipe(
            recipe, p or [], name or None, start or None, seed, status_printer(as_json)
        ):
            _came_to(done, as_json)


@app.command()
def resume(run: RunName, as_json: AsJson = False):
    """Go on with a run that was interrupted, killed or failed, as it was asked for."""
    from ..pipeline import resume as resume_run
    from ..pipeline.notebook import StageError

    with report_errors(StageError):
        if done := resume_run(run, status_printer(as_json)):
            _came_to(done, as_json)


def _came_to(done, as_json: bool):
    from ..pipeline.runner import headline
    from ..pipeline.runs.table import run_values

    print_result(run_values(done), headline(done).splitlines(), as_json)


def _not_now(
    recipe: str, given: list[str], name: str, start: str, seed: int | None, dry_run: bool, on: str, as_json: bool
):  # fmt: skip
    """Say what would be done, or write it down for a cluster."""
    from ..config.validation import ParameterError, as_parameters
    from ..pipeline.cluster import PORT, Job, write_job
    from ..pipeline.dry_run import preview_run
    from ..pipeline.paths import run_folder
    from ..pipeline.recipes import configs, find_recipe
    from ..pipeline.runner import plan, stage_named
    from ..run.run import Run

    if on and (
        start or dry_run
    ):  # a job that is started again goes on; with --from it would begin again
        raise ParameterError(
            f"--on {on}: given with {'--from' if start else '--dry-run'}; allowed is one of the two"
        )
    path = find_recipe(recipe)
    run = Run(run_folder(name or path.stem))
    met = (
        [f"train.master_port={PORT}"] if on else []
    )  # the job sets it; without one, several hosts are refused
    stages, start = configs(recipe, run.folder, [*met, *given], seed), stage_named(start or None)
    if on:
        options = [part for each in given for part in ("-p", each)]
        options += [] if seed is None else ["--seed", str(seed)]
        train = stages["train"]
        job = Job(
            run.name,
            run.folder,
            path,
            [["--name", run.name, *options]],
            train.num_nodes,
            train.num_processes,
        )
        file, submit = write_job(on, job)
        return print_result(
            {"file": str(file), "submit": submit},
            [f"written: {file}", f"submit it: {submit}"],
            as_json,
        )
    why = plan(run, stages, start)
    known = preview_run(run, path.stem, stages, why)
    told = {
        stage: {"why": why[stage], "parameters": as_parameters(config)}
        for stage, config in stages.items()
    }
    lines = [
        f"{stage}: {', '.join(reasons) or 'unchanged, would be kept'}"
        for stage, reasons in why.items()
    ]
    lines += [f"{name}: {said}" for name, said in known.items()]
    print_result(
        {"run": str(run.folder), "stages": told, "known": known},
        [f"run: {run.folder}", *lines],
        as_json,
    )


@app.command()
def sweep(
    recipe: Recipe,
    p: Annotated[
        list[str],
        typer.Option(
            "-p",
            metavar="STAGE.NAME=VALUES",
            help="Values of a parameter: 4,8,16 or 0..2; or one, for all runs.",
        ),
    ],
    name: Annotated[
        str, typer.Option(help="Name of the sweep; its runs' names begin with it.")
    ] = "",
    jobs: Annotated[int, typer.Option(help="Runs at a time.")] = 1,
    metric: Annotated[
        str, typer.Option(help="What runs are compared by, e.g. rate; else the held-out loss.")
    ] = "",
    seed: Seed = None,
    on: On = "",
    as_json: AsJson = False,
):
    """Run a recipe with every combination of several values: a table, a plot, the best run. Again, it does what is missing."""
    from ..pipeline import sweep as run_sweep
    from ..pipeline.notebook import StageError
    from ..pipeline.runs.table import align_columns, columns
    from ..pipeline.sweep.sweep import as_dict

    with report_errors(StageError):
        if on:
            return _sweep_on(recipe, p, name, jobs, seed, on, as_json)
        told = run_sweep(recipe, p, name or None, jobs, metric, seed, status_printer(as_json))
        rows = [each | {full: each[f"swept {full}"] for full in told.swept} for each in told.rows]
        table = align_columns(
            columns(rows, ["name", *told.swept, "status", told.metric, "seconds"])
        )
        page = f"table and plot: {told.folder / 'sweep.html'}"
        print_result(
            as_dict(told),
            [*table, f"best by {told.metric}: {told.best or 'none is done'}", page],
            as_json,
        )
        if told.failed:
            names = ", ".join(told.failed)
            exit_with(
                f"{len(told.failed)} of {len(told.rows)} runs are not done: {names}; give the same command again",
                1,
            )


def _sweep_on(
    recipe: str, given: list[str], name: str, jobs: int, seed: int | None, on: str, as_json: bool
):
    from ..config.validation import ParameterError
    from ..pipeline.cluster import PORT, Job, write_job
    from ..pipeline.paths import run_folder
    from ..pipeline.recipes import configs
    from ..pipeline.sweep.sweep import plan_sweep, sweep_name

    path, _, members = plan_sweep(
        recipe, [f"train.master_port={PORT}", *given], name or None, jobs, seed
    )
    folder = run_folder(sweep_name(path, name or None))
    trains = [configs(str(path), folder, member.given, seed)["train"] for member in members]
    needs = {(train.num_nodes, train.num_processes) for train in trains}
    if len(needs) > 1:
        raise ParameterError(
            "sweep: an array's runs all take the same train.num_nodes and train.num_processes"
        )
    nodes, gpus = needs.pop()
    file, submit = write_job(
        on, Job(folder.name, folder, path, [each.options() for each in members], nodes, gpus, jobs)
    )
    after = "when all are done, the same command without --on makes the table"
    print_result(
        {"file": str(file), "submit": submit},
        [f"written: {file}", f"submit it: {submit}", after],
        as_json,
    )


@app.command()
def verify(run: RunName, as_json: AsJson = False):
    """Do a run again in a fresh folder and compare: the adapter and every picture are to be equal, bit for bit."""
    from ..pipeline.notebook import StageError
    from ..pipeline.reproduce import reproduce as verify_run

    with report_errors(StageError):
        told = verify_run(run, status_printer(as_json))
        lines = (
            [f"equal: {told.files} files"]
            if not told.differ
            else [f"differs: {name}" for name in told.differ]
        )
        print_result(asdict(told) | {"equal": not told.differ}, lines, as_json)
        if told.differ:
            because = f"; {', '.join(told.other)}" if told.other else ""
            exit_with(
                f"{len(told.differ)} of {told.files} files differ; the second run is in {told.again}{because}",
                1,
            )
