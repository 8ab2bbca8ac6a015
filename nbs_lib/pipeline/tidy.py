"""What is no longer wanted: runs that are removed by name, and leftovers that nothing needs."""

import fnmatch
import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from ..files import PART, remove
from ..parameters import ParameterError
from ..run import RECIPE_LOCK, Run, RunError
from .extensions import extensions_left
from .index import refresh
from .places import NAME, find_run, outputs, run_names


@dataclass(frozen=True)
class Left:
    """Something that nothing needs: its path, its bytes, and why."""

    path: Path
    bytes: int
    why: str


def removed(names: list[str], dry_run: bool = False) -> list[str]:
    """Remove runs and sweeps' tables by name or pattern (`demo-sweep*`); their names. Caches stay, see `gc`.

    dry_run: only say. Everything is looked up before anything goes. Errors: ParameterError for a name or pattern that fits
    nothing; RunError where a process works on one of them.
    """
    found = list(dict.fromkeys(name for given in names for name in _fitting(given)))
    for name in found:
        if Run(outputs() / name).at_work():
            with Run(outputs() / name).alone(RECIPE_LOCK):  # which says who it is
                pass
            raise RunError(f"{outputs() / name} is being worked on by a notebook; wait until it has ended")
    if dry_run:
        return found
    for name in found:
        folder = outputs() / name
        folder.unlink() if folder.is_symlink() else remove(folder)
    with suppress(OSError):
        refresh()
    return found


def _fitting(given: str) -> list[str]:
    sweeps = [path.parent.name for path in outputs().glob("[!.]*/sweep.json")]
    known = [*run_names(), *sweeps]
    if fitting := sorted(set(fnmatch.filter(known, given.rstrip("/")))):
        return fitting
    if any(sign in given for sign in "*?["):
        raise ParameterError(f"run: given {given!r}; no run's name fits it; `onepass list` names them")
    return [find_run(given).name]


def leftovers() -> list[Left]:
    """What can go: caches that no run uses, checkpoints of finished trainings, what killed processes left half-written."""
    return [*_caches(dry_run=True), *_others()]


def _caches(dry_run: bool) -> list[Left]:
    from ..prepare.store import prune

    store = outputs() / "cache"
    return [Left(store / each.key, each.bytes, "a cache that no run uses") for each in prune(store, dry_run)]


def _others() -> list[Left]:
    found = []
    for name in run_names():
        run = Run(outputs() / name)
        with suppress(RunError):
            if not run.at_work() and run.stage_record("train").get("status") == "done" and run.checkpoints.is_dir():
                found.append(Left(run.checkpoints, size(run.checkpoints), "checkpoints of a training that is done"))
    found += [Left(path, size(path), "compiled for an environment that is gone") for path in extensions_left()]
    for path in [*outputs().glob(".*"), *outputs().glob("*/.*"), *outputs().glob("*/*/.*")]:
        if _abandoned(path):
            found.append(Left(path, size(path), "left by a process that was killed"))
    return found


def _abandoned(path: Path) -> bool:
    if match := PART.fullmatch(path.name):
        return not psutil.pid_exists(int(match[1]))
    if path.name.startswith(".verify-") and path.is_dir():
        inner = [each for each in path.iterdir() if each.is_dir() and re.fullmatch(NAME, each.name)]
        return not any(Run(each).at_work() for each in inner)
    return path.name == ".space" and not Run(path.parent).at_work()


def gc(dry_run: bool = False) -> list[Left]:
    """Remove the leftovers; what they were. dry_run: only say."""
    if dry_run:
        return leftovers()
    others = _others()
    for left in others:
        if left.path.name == "checkpoints":  # a training may have begun since it was looked at
            with suppress(RunError), Run(left.path.parent).alone():
                remove(left.path)
        else:
            shutil.rmtree(left.path, ignore_errors=True) if left.path.is_dir() else left.path.unlink(missing_ok=True)
    return [*_caches(dry_run=False), *(left for left in others if not left.path.exists())]


def size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    return sum(each.lstat().st_size for each in (path, *path.rglob("*")) if each.is_file() or each.is_symlink())
