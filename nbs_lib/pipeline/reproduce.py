"""A run executed again in a fresh folder, with a fresh cache, and compared.

The same recipe, machine and versions give the same adapter and the same pictures, bit for bit.
"""

import shutil
import tempfile
from dataclasses import dataclass, replace
from os.path import isfile
from pathlib import Path

from ..config import STAGES
from ..config.training import LATEST, NONE
from ..config.validation import as_parameters
from ..files import file_hash
from ..run.environment import environment
from ..run.run import RECIPE_LOCK, Run, RunError
from ..run.terminal_text import printable
from .notebook import execute
from .paths import find_run, outputs
from .progress import Say
from .recipes import result_parameters
from .runner import requested
from .runs.diff import picture_names


@dataclass(frozen=True)
class Reproduction:
    """The comparison of a run with its second execution.

    files: number of compared files
    differ: names of the files that differ, relative to the run
    other: changes of the machine, the versions and the code since the first execution
    again: folder of the second execution, kept only if a file differs
    """

    files: int
    differ: list[str]
    other: list[str]
    again: Path | None


def reproduce(name: str, say: Say = print) -> Reproduction:
    """Execute a run again and compare the results.

    Errors: ParameterError; StageError; RunError for a run that cannot be repeated.
    """
    run = find_run(name)
    stages = _repeatable_stages(run)
    changes = environment_changes(run)
    for change in changes:
        say(printable(f"      {change}: the results need not be equal"))
    # the cache lies beside the run, so in a new folder no cache of the first execution is reused
    parent = Path(tempfile.mkdtemp(prefix=f".verify-{run.name[:100]}-", dir=outputs()))
    again = Run(parent / run.name)
    differ = None
    try:
        # between two stages no kernel holds a lock, and `gc` would remove the folder
        with again.exclusive(RECIPE_LOCK):
            for number, (stage, config) in enumerate(stages.items(), 1):
                say(f"[{number}/{len(STAGES)}] {stage}, again")
                execute(again, stage, replace(config, run=str(again.folder)), say)
        names = _result_names(run) | _result_names(again)
        differ = [name for name in sorted(names) if _hash(run, name) != _hash(again, name)]
    finally:
        if not differ:
            shutil.rmtree(parent, ignore_errors=True)
    return Reproduction(len(names), differ, changes, again.folder if differ else None)


def _repeatable_stages(run: Run) -> dict:
    """Return the configs that a finished run was requested with. Errors: RunError."""
    if run.read().get("status") != "done":
        raise RunError(
            f"{run.folder} is not done, so there is nothing to compare with; "
            f"`onepass resume {run.name}` ends it"
        )
    _, stages = requested(run)
    for stage, config in stages.items():
        recorded = run.stage_record(stage).get("parameters", {})
        if result_parameters(as_parameters(config)) != result_parameters(recorded):
            raise RunError(
                f"{run.folder} has been asked for something else since it was done; "
                f"`onepass resume {run.name}` does it"
            )
    if stages["train"].resume_from_checkpoint not in (LATEST, NONE):
        raise RunError(
            f"{run.folder} was trained from a checkpoint that was named, "
            "and a fresh folder has none to begin with"
        )
    return stages


def _result_names(run: Run) -> set[str]:
    # the names of both runs, so that a file of one alone differs
    pictures = {f"compare/pictures/{name}" for name in picture_names(run)}
    return pictures | set(run.stage_record("train").get("outputs", {}))


def _hash(run: Run, name: str) -> str:
    # a missing file differs from any other
    path = run.folder / name
    return file_hash(path) if isfile(path) else ""


def environment_changes(run: Run) -> list[str]:
    """Return what changed in versions, hardware and code since the run was executed."""
    record = run.read()
    now = environment()
    changes = []
    for part, names in (("versions", now["versions"]), ("machine", ("cpu", "gpus"))):
        before = record.get(part, {})
        for name in names:
            if before.get(name) != now[part][name]:
                changes.append(f"{name} was {before.get(name)}, is {now[part][name]}")
    if record.get("commit") != now["commit"]:
        changes.append(f"the commit was {record.get('commit')}, is {now['commit']}")
    return changes
