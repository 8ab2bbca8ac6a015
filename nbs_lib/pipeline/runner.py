"""One run: the stages whose inputs changed are executed, the others are kept."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from ..config import STAGES
from ..config.validation import ParameterError, as_parameters
from ..files import from_project, remove
from ..run.run import RECIPE_LOCK, REFUSALS, STAGE_LOCK, Run, RunError
from ..run.terminal_text import printable
from .kernel import Log
from .notebook import ORPHAN_TIMEOUT, StageError, execute
from .notebook_html import last_output, write_page
from .paths import did_you_mean, find_run, run_folder
from .plan import (
    REQUESTED,
    describe_training_start,
    find_reasons,
    plan,
    require_earlier_stages,
)
from .progress import Say
from .recipes import Overrides, apply_overrides, check_configs, configs, find_recipe
from .runs.index_page import refresh
from .runs.table import status_of_stages


def run(
    recipe: str,
    parameters: Overrides = (),
    name: str | None = None,
    start: str | None = None,
    seed: int | None = None,
    say: Say = print,
) -> Run | None:
    """Execute the notebooks whose inputs changed since they were last executed.

    Everything is checked before anything is written.

    parameters: those that differ from the recipe, {"train.steps": 500} or ["train.steps=500"]
    name: the run's, by default the recipe's
    start: first stage to re-run, with all later ones, even if nothing has changed
    seed: sets every seed
    say: prints lines about the progress

    Returns the finished run; None on another host than the first, which only joins the stages that
    several hosts do together.

    Errors: ParameterError; StageError; RunError if another process works on the same run, or its
    record is damaged.
    """
    path = find_recipe(recipe)
    folder = run_folder(name or path.stem)
    stages = configs(recipe, folder, parameters, seed)
    return _execute_stages(Run(folder), path.stem, stages, check_stage_name(start), say)


def run_stage(
    stage: str,
    recipe: str,
    parameters: Overrides = (),
    name: str | None = None,
    seed: int | None = None,
    say: Say = print,
) -> Run | None:
    """Execute one stage of a recipe if its inputs changed, on the results of the earlier stages.

    The other arguments, the result and the errors are those of `run`; RunError also if an earlier
    stage is not done.
    """
    path = find_recipe(recipe)
    for other in apply_overrides(parameters).items():
        _refuse_other_stage(stage, *other)
    folder = run_folder(name or path.stem)
    stages = configs(recipe, folder, parameters, seed)
    command = recipe if folder.name == path.stem else f"{recipe} --name {folder.name}"
    require_earlier_stages(Run(folder), stage, command)
    return _execute_stages(Run(folder), path.stem, stages, None, say, only=stage)


def _refuse_other_stage(stage: str, other: str, parameters: dict):
    """Raise ParameterError if parameters are given for another stage than the one to execute."""
    if parameters and other != stage:
        raise ParameterError(
            f"-p {other}.{next(iter(parameters))}: given to `onepass {stage}`; allowed are "
            f"parameters of {stage}, and `onepass {other}` takes this one"
        )


def resume(name: str, say: Say = print) -> Run | None:
    """Continue a run as it was requested, even if its recipe has changed since.

    Errors: the same as `run`.
    """
    existing = find_run(name)
    recipe, stages = requested(existing)
    return _execute_stages(existing, recipe, stages, None, say)


def requested(run: Run) -> tuple[str, dict]:
    """Return the recipe's name and the configs that a run was requested with.

    Errors: RunError if its record does not hold them.
    """
    # only a run of the command has a request, no run of notebooks in JupyterLab
    request = run.read().get("asked", {})
    if set(request) != {"recipe", *STAGES} or request["recipe"] is None:
        raise RunError(
            f"{run.folder} does not say what it was asked for; "
            f"use `onepass run RECIPE --name {run.name}`"
        )
    parameters = {stage: request[stage] for stage in STAGES}
    return request["recipe"], check_configs(parameters, run.folder)


def check_stage_name(stage: str | None) -> str | None:
    """Return the stage. Errors: ParameterError if there is none of that name."""
    if stage is None or stage in STAGES:
        return stage
    hint = did_you_mean(stage, STAGES)
    raise ParameterError(f"--from: given {stage!r}; allowed is one of {', '.join(STAGES)}{hint}")


def _execute_stages(
    run: Run,
    recipe: str,
    stages: dict,
    start: str | None,
    say: Say,
    only: str | None = None,
) -> Run | None:
    """Execute all stages, or only one. start: the first stage to re-run."""
    # read here too: the comparison comes last, and would be refused after a long training
    stages["compare"].file_prompts  # noqa: B018
    shared = [stage for stage in stages if getattr(stages[stage], "node_rank", 0)]
    if joined := [stage for stage in shared if only in (None, stage)]:
        return _join_host_0(run, stages, joined, start, say)
    log = Log(run.log)
    fresh = not run.folder.exists()

    def tell(line: str):
        # a line may quote a record that somebody else wrote
        line = printable(line)
        say(line)
        log.say(line)

    # this lock is the command's; the kernel of each stage holds the stage's own
    with run.exclusive(RECIPE_LOCK):
        before = run.read().get("asked")
        # before the first stage, so that a killed run can be resumed
        _record_request(run, recipe, stages, only)
        try:
            for number, stage in enumerate(stages, 1):
                if only not in (None, stage):
                    continue
                _update_stage(run, stage, stages[stage], start, f"[{number}/3]", tell, say)
        except StageError as failure:
            if fresh and failure.name in REFUSALS:
                # such a run has nothing to show and nothing to resume
                remove(run.folder)
                raise StageError(failure.message, failure.code, name=failure.name) from failure
            if failure.refused and before:
                # otherwise `resume` would be refused as well
                run.update(asked=before)
            raise
        else:
            # a request in between may have failed before it changed anything
            status = status_of_stages(run.read()) if only else "done"
            if run.read().get("status") != status:
                run.update(status=status)
        finally:
            # the index can be made again, and must not hide what happened
            with suppress(OSError):
                refresh(run)
    return run


def _update_stage(
    run: Run,
    stage: str,
    config: Any,
    start: str | None,
    number: str,
    tell: Say,
    say: Say,
):
    """Execute a stage if there is a reason to."""
    reasons = find_reasons(run, stage, config, start)
    if not reasons:
        say(f"{number} {stage}: unchanged, kept")
        _write_missing_page(run.notebook(stage))
        return
    text = ", ".join(reasons)
    if stage == "train":
        text += f"; {describe_training_start(run, config, reasons == REQUESTED)}"
    tell(f"{number} {stage}: {text}")
    if stage == "train" and reasons == REQUESTED:
        with run.exclusive(STAGE_LOCK, ORPHAN_TIMEOUT):
            # otherwise it would resume from the last checkpoint
            remove(run.checkpoints)
    execute(run, stage, config, say)
    tell(f"      {run.stage_record(stage)['seconds']} s")


def _join_host_0(run: Run, stages: dict, joined: list[str], start: str | None, say: Say):
    """Execute the stages that this further host does together with host 0."""
    # the folder is shared by the hosts, so this one records nothing
    reasons = plan(run, stages, start)[joined[0]]
    for stage in joined:
        config = stages[stage]
        if stage != joined[0]:
            # only now, because an earlier stage may have given the very same result
            reasons = find_reasons(run, stage, config, start)
        if reasons:
            say(f"host {config.node_rank}: {stage}, with host 0, which keeps the record")
            execute(run, stage, config, say)
        else:
            # host 0 does not do it then either, and would be waited for in vain
            say(f"host {config.node_rank}: {stage}: unchanged, kept")


def _write_missing_page(notebook: Path):
    """Write a notebook's page if the command was killed before it could."""
    if notebook.exists() and not notebook.with_suffix(".html").exists():
        with suppress(OSError, ValueError):
            write_page(notebook)


def _record_request(run: Run, recipe: str, stages: dict, only: str | None):
    """Record the request, for `resume` and `verify`."""
    before = run.read().get("asked", {})
    request = {"recipe": recipe}
    for stage in STAGES:
        request[stage] = as_parameters(stages[stage])
        # the run's own folder: a project that was copied must not point to the original
        request[stage].pop("run")
        # the request of one stage leaves those of the others as they were
        if only not in (None, stage):
            request[stage] = before.get(stage, request[stage])
    if before != request:
        run.update(name=run.name, asked=request)


def headline(run: Run, stage: str = "compare") -> str:
    """Return the result of a finished stage: the last output of its notebook."""
    return last_output(run.notebook(stage)) or f"report: {from_project(run.report)}"
