"""A run done again in a fresh folder, with a fresh cache, and compared: the same recipe, machine and versions give the
same adapter and the same pictures, to the last bit."""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from os.path import isfile
from pathlib import Path
from typing import Any

from ..config import PLACE, STAGES
from ..config.train import LATEST, NONE
from ..config.validation import as_parameters
from ..files import file_hash
from ..run.environment import environment
from ..run.run import RECIPE_LOCK, Run, RunError
from ..run.terminal_text import printable
from .notebook import execute
from .paths import find_run, outputs
from .runner import requested
from .runs.diff import pictures_of


@dataclass(frozen=True)
class Reproduction:
    """differ: the files that came out otherwise, relative to the run; files: how many were compared; other: what of the
    machine and the versions is not as it was; again: the folder of the second run, kept where it differs."""

    files: int
    differ: list[str]
    other: list[str]
    again: Path | None


def reproduce(name: str, say: Callable[[str], None] = print) -> Reproduction:
    """Do a run again and compare. Errors: ParameterError; RunError for a run that is not done; StageError."""
    run = find_run(name)
    if run.read().get("status") != "done":
        raise RunError(
            f"{run.folder} is not done, so there is nothing to compare with; `onepass resume {run.name}` ends it"
        )
    _, stages = requested(run)
    done = run.read().get("stages", {})
    if any(
        _own(as_parameters(config)) != _own(done.get(stage, {}).get("parameters", {}))
        for stage, config in stages.items()
    ):
        raise RunError(
            f"{run.folder} has been asked for something else since it was done; `onepass resume {run.name}` does it"
        )
    if stages["train"].resume_from_checkpoint not in (LATEST, NONE):
        raise RunError(
            f"{run.folder} was trained from a checkpoint that was named, and a fresh folder has none to begin with"
        )
    other = fresh_folder(run)
    for each in other:
        say(printable(f"      {each}: the results need not be equal"))
    # a folder of its own, beside which the caches lie as well: nothing of the first run is used
    place = Path(tempfile.mkdtemp(prefix=f".verify-{run.name[:100]}-", dir=outputs()))
    again = Run(place / run.name)
    kept = False
    try:
        with again.exclusive(RECIPE_LOCK):  # between its stages it is at work as well
            for number, (stage, config) in enumerate(stages.items(), 1):
                say(f"[{number}/{len(STAGES)}] {stage}, again")
                execute(again, stage, replace(config, run=str(again.folder)), say)
        differ, files = compared(run, again)
        kept = bool(differ)
    finally:
        if not kept:
            shutil.rmtree(place, ignore_errors=True)
    return Reproduction(files, differ, other, again.folder if kept else None)


def _own(parameters: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if name not in PLACE}


def compared(first: Run, second: Run) -> tuple[list[str], int]:
    """The weights and pictures that differ, and how many files were compared."""
    names = set()
    for run in (first, second):
        names |= {f"compare/pictures/{name}" for name in pictures_of(run)}
        names |= set(run.stage_record("train").get("outputs", {}))
    return [name for name in sorted(names) if _hash(first, name) != _hash(second, name)], len(names)


def _hash(run: Run, name: str) -> str:
    path = run.folder / name
    return file_hash(path) if isfile(path) else ""


def fresh_folder(run: Run) -> list[str]:
    """What of the versions, the code and the machine is not as it was when the run was made."""
    record, now = run.read(), environment()
    then = record.get("versions", {})
    found = [
        f"{name} was {then.get(name)}, is {mine}"
        for name, mine in now["versions"].items()
        if then.get(name) != mine
    ]
    was, machine = record.get("machine", {}), now["machine"]
    found += [
        f"{part} was {was.get(part)}, is {machine[part]}"
        for part in ("cpu", "gpus")
        if was.get(part) != machine[part]
    ]
    if record.get("commit") != now["commit"]:
        found.append(f"the commit was {record.get('commit')}, is {now['commit']}")
    return found
