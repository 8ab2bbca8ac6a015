"""One run: which of its stages has changed inputs and is done anew, and which is kept."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..config import DRAWN, STAGES
from ..config.validation import ParameterError, as_parameters
from ..files import from_project, remove
from ..run.continuation import describe_start
from ..run.environment import versions
from ..run.out_of_date import describe_differences
from ..run.run import RECIPE_LOCK, REFUSALS, STAGE_LOCK, Run, RunError
from ..run.terminal_text import printable
from .notebook import ORPHANS, Log, StageError, execute
from .notebook_html import last_words, unfinished, write_page
from .paths import did_you_mean, find_run, run_folder
from .recipes import Given, check_configs, configs, find_recipe
from .runs.index_page import refresh

SHIPPED = {"source": DRAWN, "prior_preservation_source": ("", *DRAWN), "base": ("embedded",)}
"""What a run's inputs cover; any other source or base may have changed without a word."""
OWN_CLIPS = ("auto", "none", "embedded")
"""The same of what a comparison is scored with; of its contenders, others' folders are not covered."""
ASKED = ["asked for"]
SAID = {"code": "the library's code", "notebook": "the notebook", "base": "the embedded base"}
Say = Callable[[str], None]


def run(
    recipe: str,
    parameters: Given = (),
    name: str | None = None,
    start: str | None = None,
    seed: int | None = None,
    say: Say = print,
) -> Run | None:
    """Run the notebooks whose inputs changed since they were last done; the finished run. On another host than the first,
    its part of the training, which waits for the first host; None.

    parameters: what differs from the recipe, {"train.steps": 500} or ["train.steps=500"]; name: of the run, the recipe's
    if left out; start: a stage that is done anew with those after it, whatever has changed; seed: every seed.
    Everything is checked before anything is written. Errors: ParameterError; StageError; RunError where another process
    works on the same run, or its record is damaged.
    """
    path = find_recipe(recipe)
    folder = run_folder(name or path.stem)
    return _go(
        Run(folder), path.stem, configs(recipe, folder, parameters, seed), stage_named(start), say
    )


def resume(name: str, say: Say = print) -> Run | None:
    """Go on with a run as it was asked for, whatever has become of its recipe since. Errors: as of `run`."""
    found = find_run(name)
    recipe, stages = requested(found)
    return _go(found, recipe, stages, None, say)


def requested(run: Run) -> tuple[str, dict[str, Any]]:
    """The recipe's name and the configs that a run was asked for. Errors: RunError where it does not say."""
    told = run.read().get("asked", {})
    if set(told) != {"recipe", *STAGES} or told["recipe"] is None:
        raise RunError(
            f"{run.folder} does not say what it was asked for; use `onepass run RECIPE --name {run.name}`"
        )
    return told["recipe"], check_configs({stage: told[stage] for stage in STAGES}, run.folder)


def plan(run: Run, stages: dict[str, Any], start: str | None = None) -> dict[str, list[str]]:
    """Why each stage would be done; [] where it is kept. Writes nothing."""
    why: dict[str, list[str]] = {}
    for stage, config in stages.items():
        before = [each for each, reasons in why.items() if reasons]
        why[stage] = (
            reasons(run, stage, config, start)
            or [f"{', '.join(before)} may come to something else"][: len(before)]
        )
        if why[stage] and stage == "train":
            why[stage] = [
                *why[stage],
                first_stage(run, config, anew=why[stage] == ASKED or "prepare" in before),
            ]
    return why


def first_stage(run: Run, config: Any, anew: bool) -> str:
    """Say at which step a training begins, and that a finished one is replaced, by what the run has recorded.

    anew: whether what it rests on is another, or no checkpoint is to be used.
    """
    known, now = run.stage_record("train"), as_parameters(config)
    before = known.get("parameters", {}) | {
        "steps": known.get("resolved", {}).get("steps", now["steps"])
    }
    if config.epochs and before.get("epochs"):
        now["steps"] = before["steps"] * config.epochs // before["epochs"]
    steps = [
        int(path.parent.name[5:])
        for path in run.checkpoints.glob("step-*/checkpoint.json")
        if path.parent.name[5:].isdigit()
    ]
    other = anew or [
        name
        for name, value in run.inputs(config).items()
        if known.get("inputs", {}).get(name) != value
    ]
    said = (
        describe_start(before, now, max(steps, default=0))
        if other in ([], ["parameters"])
        else "begins at step 0"
    )
    lost = (
        ", and what it has learned takes the place of the finished training's"
        if known.get("status") == "done"
        else ""
    )
    return said + lost


def stage_named(given: str | None) -> str | None:
    if given is None or given in STAGES:
        return given
    hint = did_you_mean(given, list(STAGES))
    raise ParameterError(f"--from: given {given!r}; allowed is one of {', '.join(STAGES)}{hint}")


def _go(run: Run, recipe: str, stages: dict[str, Any], start: str | None, say: Say) -> Run | None:
    if host := stages["train"].node_rank:
        if not plan(run, stages, start)["train"]:  # nor does host 0 train then
            say(f"host {host}: train: unchanged, kept")
            return None
        say(f"host {host}: trains with host 0, which prepares and compares")
        execute(run, "train", stages["train"], say)
        return None
    log, fresh = Log(run.log), not run.folder.exists()

    def tell(line: str):
        line = printable(line)  # a record of somebody else's may be told of
        say(line)
        log.say(line)

    with run.exclusive(RECIPE_LOCK):  # each stage's own lock is held by its kernel
        before = run.read().get("asked")
        _ask(run, recipe, stages)
        try:
            for number, (stage, config) in enumerate(stages.items(), 1):
                why = reasons(run, stage, config, start)
                if not why:
                    say(f"[{number}/3] {stage}: unchanged, kept")
                    _complete(run.notebook(stage))
                    continue
                said = f"; {first_stage(run, config, why == ASKED)}" if stage == "train" else ""
                tell(f"[{number}/3] {stage}: {', '.join(why)}{said}")
                _do(run, stage, config, say, anew=why == ASKED)
                tell(f"      {run.stage_record(stage)['seconds']} s")
        except StageError as failure:
            if fresh and failure.name in REFUSALS:  # there is nothing to show, nor to go on with
                remove(run.folder)
                raise StageError(failure.said, failure.code, name=failure.name) from failure
            if failure.refused and before:  # or `resume` would be refused as well
                run.update(asked=before)
            raise
        else:
            if (
                run.read().get("status") != "done"
            ):  # what was asked for in between failed before it changed anything
                run.update(status="done")
        finally:
            with suppress(
                OSError
            ):  # the index can be made again, and is no reason to hide what happened
                refresh(run)
    return run


def _complete(notebook: Path):
    """Make the page of a notebook whose command was killed before it came to that."""
    if notebook.exists() and not notebook.with_suffix(".html").exists():
        with suppress(OSError, ValueError):
            write_page(notebook)


def _do(run: Run, stage: str, config: Any, say: Say, anew: bool):
    if anew and stage == "train":
        with run.exclusive(STAGE_LOCK, ORPHANS):
            remove(run.checkpoints)  # or else it would go on from the last of them
    execute(run, stage, config, say)


def _ask(run: Run, recipe: str, stages: dict[str, Any]):
    """Write down what is asked for, so that `resume` and `verify` know."""
    told = {"recipe": recipe} | {stage: as_parameters(config) for stage, config in stages.items()}
    for stage in STAGES:
        told[stage].pop("run")
    if run.read().get("asked") != told:
        run.update(name=run.name, asked=told)


def reasons(run: Run, stage: str, config: Any, start: str | None = None) -> list[str]:
    """Why a stage is to be done, in words; [] where nothing has changed."""
    order = list(STAGES)
    if start and order.index(stage) >= order.index(start):
        return ASKED
    if changed := run.changed(config):
        return [describe_plan(run, config, name) for name in changed]
    if unfinished(
        run.notebook(stage)
    ):  # its kernel or its command was ended after the stage was done
        return ["its notebook is not whole"]
    if stage == "prepare":
        other = [name for name, ours in SHIPPED.items() if getattr(config, name) not in ours]
        return [f"its {name} is looked at again" for name in other]
    if stage == "compare":
        other = [name for name, parsed in config.parsed_contenders.items() if parsed.folders]
        other += [f"clip {config.clip}"] if config.clip not in OWN_CLIPS else []
        return [f"{name} is looked at again" for name in other]
    return []


def describe_plan(run: Run, config: Any, name: str) -> str:
    """What of a stage's inputs has changed. name: as `Run.changed` has it."""
    stage = next(stage for stage, cls in STAGES.items() if isinstance(config, cls))
    before = run.stage_record(stage)
    if name == "parameters":
        return (
            describe_differences(before.get("parameters", {}), as_parameters(config))
            or "a parameter has changed"
        )
    if name == "versions":
        return (
            describe_differences(before.get("versions", {}), versions()) or "a version has changed"
        )
    if name in STAGES:
        return f"{name} came to something else"
    if name in before.get("outputs", {}):
        return f"{name} is missing or was changed"
    return f"{SAID[name]} has changed" if name in SAID else name


def headline(run: Run) -> str:
    """What a finished run came to: what its last notebook printed at its end."""
    return last_words(run.notebook("compare")) or f"report: {from_project(run.report)}"
