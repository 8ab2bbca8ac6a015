"""Commands that execute a run, or one of its stages."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any

import typer

from .app import (
    AsJson,
    DryRun,
    Recipe,
    RunName,
    app,
    command_name,
    exit_with,
    print_result,
    report_errors,
    status_printer,
)

PARAMETERS_HELP = "A parameter, e.g. -p train.steps=50; also several."
Parameters = Annotated[
    list[str] | None, typer.Option("-p", metavar="STAGE.NAME=VALUE", help=PARAMETERS_HELP)
]
NAME_HELP = "Name of the run, a folder in outputs/; the recipe's name if left out."
Name = Annotated[str, typer.Option(help=NAME_HELP)]
START_HELP = "Re-run this stage and all later ones."
Start = Annotated[str, typer.Option("--from", metavar="STAGE", help=START_HELP)]
SEED_HELP = "Sets every seed: the data's, the training's and the pictures'."
Seed = Annotated[int | None, typer.Option(help=SEED_HELP)]
STAGE_HELP = {
    "prepare": "Run the first stage of a recipe alone: pictures and captions become a cache.",
    "train": "Run the second stage of a recipe alone, on the cache that there is.",
    "compare": "Run the third stage of a recipe alone, on the adapter that there is.",
}
ON_HELP = "Write a job script or manifest instead, for you to submit."
On = Annotated[str, typer.Option(metavar="slurm|k8s", help=ON_HELP)]


@app.command()
def run(
    recipe: Recipe,
    p: Parameters = None,
    name: Name = "",
    start: Start = "",
    seed: Seed = None,
    dry_run: DryRun = False,
    on: On = "",
    as_json: AsJson = False,
):
    """Run a recipe: prepare, train, compare. Again, it resumes, and keeps what is unchanged."""
    from ..config.validation import ParameterError
    from ..pipeline import run as run_recipe
    from ..pipeline.notebook import StageError

    with report_errors(StageError):
        # refused before anything is read
        if on and (start or dry_run):
            # a job that is started again resumes; with --from it would begin again
            option = "--from" if start else "--dry-run"
            raise ParameterError(f"--on {on}: given with {option}; allowed is one of the two")
        if on:
            _write_run_job(recipe, p or [], name, seed, on, as_json)
        elif dry_run:
            _preview(recipe, p or [], name, start, seed, as_json)
        else:
            say = status_printer(as_json)
            finished = run_recipe(recipe, p or [], name or None, start or None, seed, say)
            _print_run(finished, as_json)


@app.command()
def resume(run: RunName, as_json: AsJson = False):
    """Continue a run that was interrupted, killed or failed, as it was asked for."""
    from ..pipeline import resume as resume_run
    from ..pipeline.notebook import StageError

    with report_errors(StageError):
        _print_run(resume_run(run, status_printer(as_json)), as_json)


def _stage_command(stage: str) -> Callable[..., None]:
    """Return the command that runs one stage."""

    def command(
        recipe: Recipe,
        p: Parameters = None,
        name: Name = "",
        seed: Seed = None,
        as_json: AsJson = False,
    ):
        _run_one_stage(stage, recipe, p or [], name, seed, as_json)

    return command


for stage, text in STAGE_HELP.items():
    app.command(stage, help=text)(_stage_command(stage))


def _run_one_stage(
    stage: str,
    recipe: str,
    overrides: list[str],
    name: str,
    seed: int | None,
    as_json: bool,
):
    from ..pipeline import run_stage
    from ..pipeline.notebook import StageError

    with report_errors(StageError):
        say = status_printer(as_json)
        _print_run(run_stage(stage, recipe, overrides, name or None, seed, say), as_json, stage)


def _print_run(finished: Any, as_json: bool, stage: str = "compare"):
    """Print what a stage came to, and what to open and try. finished: None on a further host."""
    from ..pipeline.runner import headline
    from ..pipeline.runs.show import next_steps
    from ..pipeline.runs.table import run_values

    # another host than the first has only joined some stages
    if finished is not None:
        lines = [*headline(finished, stage).splitlines(), "", *next_steps(finished, command_name())]
        print_result(run_values(finished), lines, as_json)


def _preview(
    recipe: str,
    overrides: list[str],
    name: str,
    start: str,
    seed: int | None,
    as_json: bool,
):
    """Print what a run would do, and what is known of it."""
    from ..config.validation import as_parameters
    from ..pipeline.dry_run import preview_run
    from ..pipeline.paths import run_folder
    from ..pipeline.plan import plan
    from ..pipeline.recipes import configs, find_recipe
    from ..pipeline.runner import check_stage_name
    from ..run.run import Run

    path = find_recipe(recipe)
    run = Run(run_folder(name or path.stem))
    configurations = configs(recipe, run.folder, overrides, seed)
    reasons = plan(run, configurations, check_stage_name(start or None))
    preview = preview_run(run, path.stem, configurations, reasons)
    lines = [f"run: {run.folder}"]
    stages = {}
    # for scripts the parameters as well, which are too many for people
    for stage, config in configurations.items():
        stages[stage] = {"why": reasons[stage], "parameters": as_parameters(config)}
        lines.append(f"{stage}: {', '.join(reasons[stage]) or 'unchanged, would be kept'}")
    lines += [f"{title}: {text}" for title, text in preview.items()]
    print_result({"run": str(run.folder), "stages": stages, "known": preview}, lines, as_json)


def _write_run_job(
    recipe: str,
    overrides: list[str],
    name: str,
    seed: int | None,
    on: str,
    as_json: bool,
):
    """Write a run's job for a cluster."""
    from ..pipeline.cluster import PORT, SHARED_STAGES, Job, node_count
    from ..pipeline.paths import run_folder
    from ..pipeline.recipes import configs, find_recipe

    path = find_recipe(recipe)
    folder = run_folder(name or path.stem)
    # the job sets the port; without one, several hosts are refused here
    ports = [f"{stage}.master_port={PORT}" for stage in SHARED_STAGES]
    stages = configs(recipe, folder, [*ports, *overrides], seed)
    # the port is not among the options: the job adds its own
    options = ["--name", folder.name]
    for override in overrides:
        options += ["-p", override]
    # seed 0 is a seed
    if seed is not None:
        options += ["--seed", str(seed)]
    processes = stages["train"].num_processes
    job = Job(folder.name, folder, path, [options], node_count(stages), processes)
    print_job(on, job, [], as_json)


def print_job(
    on: str,
    job: Any,
    notes: list[str],
    as_json: bool,
):
    """Write a job for a cluster and print how to submit it. notes: further lines for people."""
    from ..pipeline.cluster import write_job

    # it is only written: submitting costs money, and needs options of the cluster
    file, submit = write_job(on, job)
    lines = [f"written: {file}", f"submit it: {submit}", *notes]
    print_result({"file": str(file), "submit": submit}, lines, as_json)


@app.command()
def verify(run: RunName, as_json: AsJson = False):
    """Repeat a run in a fresh folder and compare the adapter and every picture, bit for bit."""
    from ..pipeline.notebook import StageError
    from ..pipeline.reproduce import reproduce

    with report_errors(StageError):
        result = reproduce(run, status_printer(as_json))
        lines = [f"differs: {name}" for name in result.differ]
        if not lines:
            lines = [f"equal: {result.files} files"]
        print_result(asdict(result) | {"equal": not result.differ}, lines, as_json)
        if result.differ:
            # the likely causes
            changes = f"; {', '.join(result.other)}" if result.other else ""
            count = f"{len(result.differ)} of {result.files} files differ"
            exit_with(f"{count}; the second run is in {result.again}{changes}", 1)
