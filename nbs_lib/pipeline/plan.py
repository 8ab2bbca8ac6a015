"""The reasons to execute or keep the stages of a run."""

from typing import Any

from ..config import DRAWN, STAGES
from ..config.validation import as_parameters
from ..project import EMBEDDED_BASES
from ..run.continuation import describe_start
from ..run.environment import versions
from ..run.out_of_date import describe_differences, outdated_stages
from ..run.run import Run, RunError
from .notebook_html import is_unfinished

# sources and bases that a run's inputs cover; any other may have changed unnoticed
COVERED = {
    "source": DRAWN,
    "prior_preservation_source": ("", *DRAWN),
    "base": tuple(EMBEDDED_BASES),
}
# the same for the scoring model of a comparison
COVERED_CLIPS = ("auto", "none", "embedded")
# the reason for a stage that the user asks to re-run
REQUESTED = ["asked for"]
INPUT_NAMES = {
    "code": "the library's code",
    "notebook": "the notebook",
    "base": "the embedded base",
    "prompts_file": "the file of prompts",
}


def plan(
    run: Run,
    stages: dict,
    start: str | None = None,
) -> dict[str, list[str]]:
    """Return the reasons for which each stage would be executed, [] if it is kept."""
    planned = {}
    earlier = []
    for stage, config in stages.items():
        reasons = find_reasons(run, stage, config, start)
        # an executed stage may still give the very same result, and keep the later ones
        if not reasons and earlier:
            reasons = [f"{', '.join(earlier)} may come to something else"]
        if reasons:
            earlier.append(stage)
        if reasons and stage == "train":
            fresh = reasons == REQUESTED or "prepare" in earlier
            reasons = [*reasons, describe_training_start(run, config, fresh)]
        planned[stage] = reasons
    return planned


def describe_training_start(run: Run, config: Any, fresh: bool) -> str:
    """Return the step at which a training begins, and if it replaces a finished one.

    fresh: True if its inputs are new, or the user asks for no checkpoint to be used
    """
    record = run.stage_record("train")
    # a number of epochs is recorded with the steps that it was resolved to
    now = as_parameters(config)
    before = dict(record.get("parameters", {}))
    before["steps"] = record.get("resolved", {}).get("steps", now["steps"])
    if config.epochs and before.get("epochs"):
        now["steps"] = before["steps"] * config.epochs // before["epochs"]
    recorded = record.get("inputs", {})
    inputs = run.inputs(config)
    # other parameters may still allow a checkpoint to be used, anything else does not
    changed = {name for name, value in inputs.items() if recorded.get(name) != value}
    if fresh or changed - {"parameters"}:
        text = "begins at step 0"
    else:
        text = describe_start(before, now, _last_checkpoint(run))
    if record.get("status") == "done":
        text += ", and what it has learned takes the place of the finished training's"
    return text


def _last_checkpoint(run: Run) -> int:
    folders = [path.parent.name for path in run.checkpoints.glob("step-*/checkpoint.json")]
    # anybody may have made a folder of such a name
    numbers = [name.removeprefix("step-") for name in folders]
    return max((int(number) for number in numbers if number.isdigit()), default=0)


def find_reasons(
    run: Run,
    stage: str,
    config: Any,
    start: str | None = None,
) -> list[str]:
    """Return the reasons to execute a stage, in words, [] if nothing has changed."""
    order = list(STAGES)
    if start and order.index(stage) >= order.index(start):
        return REQUESTED
    if changed := run.changed(config):
        return [describe_change(run, stage, config, name) for name in changed]
    if is_unfinished(run.notebook(stage)):
        # the kernel or the command ended after the stage was recorded as done
        return ["its notebook is not whole"]
    uncovered = []
    if stage == "prepare":
        names = [name for name, values in COVERED.items() if getattr(config, name) not in values]
        uncovered = [f"its {name}" for name in names]
    if stage == "compare":
        # the folders of other adapters and models
        uncovered = [
            name for name, contender in config.parsed_contenders.items() if contender.folders
        ]
        if config.clip not in COVERED_CLIPS:
            uncovered.append(f"clip {config.clip}")
        if config.features:
            uncovered.append(f"features {config.features}")
        uncovered += [f"{score}'s model" for score in config.parsed_scores]
    return [f"{name} is looked at again" for name in uncovered]


def describe_change(
    run: Run,
    stage: str,
    config: Any,
    name: str,
) -> str:
    """Return a changed input of a stage in words. name: an item of `Run.changed`."""
    before = run.stage_record(stage)
    if name == "parameters":
        changes = describe_differences(before.get("parameters", {}), as_parameters(config))
        return changes or "a parameter has changed"
    if name == "versions":
        changes = describe_differences(before.get("versions", {}), versions())
        return changes or "a version has changed"
    if name in STAGES:
        return f"{name} has other outputs"
    if name in before.get("outputs", {}):
        return f"{name} is missing or was changed"
    # "not done yet" is no input, and stands as it is
    return f"{INPUT_NAMES[name]} has changed" if name in INPUT_NAMES else name


def require_earlier_stages(run: Run, stage: str, command: str):
    """Raise RunError if a stage before this one is not done, or rests on another than the last.

    command: the words after `onepass STAGE`
    """
    record = run.read()
    outdated = outdated_stages(record)
    for earlier in list(STAGES)[: list(STAGES).index(stage)]:
        reason = ""
        if record.get("stages", {}).get(earlier, {}).get("status") != "done":
            reason = "is not done"
        elif earlier in outdated:
            reason = f"rests on another {outdated[earlier]} than the last one"
        if reason:
            raise RunError(
                f"{run.name}: its {earlier} stage {reason}, and {stage} needs it; "
                f"`onepass {earlier} {command}` does it, `onepass run {command}` all stages"
            )
