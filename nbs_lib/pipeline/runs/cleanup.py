"""What is no longer wanted: runs that are removed by name, and leftovers that nothing needs."""

import fnmatch
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ...config.validation import ParameterError
from ...files import PART, erase, is_abandoned, remove, scan_folder
from ...run.run import RECIPE_LOCK, Run, RunError
from ..paths import NAME, find_run, outputs, run_names
from .compiled_extensions import stale_extensions
from .index_page import refresh

LEFT = re.compile(
    r"\.space|\.step-\d+\.part|\.(kept|dropped)\.parquet\.\d+\.part|[0-9a-f]{24}\.\d+\.part"
)
"""Names of what a process at work on a run leaves when it is killed; of the others, `PART`, a name tells whose it is."""


RECEIPTS = ".receipts"
"""The one hidden folder, beside the caches, in which something may be left."""


@dataclass(frozen=True)
class Removable:
    """Something that nothing needs: its path, its bytes, and why."""

    path: Path
    bytes: int
    why: str


def remove_run(names: list[str], dry_run: bool = False) -> list[str]:
    """Remove runs and sweeps' tables by name or pattern (`demo-sweep*`); their names. Caches stay, see `gc`.

    dry_run: only say. Everything is looked up before anything goes. Errors: ParameterError for a name or pattern that fits
    nothing; RunError where a process works on one of them.
    """
    found = list(dict.fromkeys(name for given in names for name in _fitting(given)))
    for name in found:
        if Run(outputs() / name).is_active():
            with Run(outputs() / name).exclusive(RECIPE_LOCK):  # which says who it is
                pass
            raise RunError(
                f"{outputs() / name} is being worked on by a notebook; wait until it has ended"
            )
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
        raise ParameterError(
            f"run: given {given!r}; no run's name fits it; `onepass list` names them"
        )
    return [find_run(given).name]


def leftovers() -> list[Removable]:
    """What can go: caches that no run uses, checkpoints of finished trainings, what killed processes left half-written."""
    return [*_caches(dry_run=True), *_others()]


def _caches(dry_run: bool) -> list[Removable]:
    from ...prepare.store.admin import prune_caches

    store = outputs() / "cache"
    return [
        Removable(store / each.key, each.bytes, "a cache that no run uses")
        for each in prune_caches(store, dry_run)
    ]


def _others() -> list[Removable]:
    found = []
    for name in run_names():
        run = Run(outputs() / name)
        if run.folder.is_symlink() or run.is_active():
            continue  # what lies elsewhere is not removed through a link
        with suppress(RunError):
            run.check_links()
            if run.stage_record("train").get("status") == "done" and run.checkpoints.is_dir():
                found.append(
                    Removable(
                        run.checkpoints,
                        size(run.checkpoints),
                        "checkpoints of a training that is done",
                    )
                )
    found += [
        Removable(path, size(path), "compiled for an environment that is gone")
        for path in stale_extensions()
    ]
    for folder in _folders(outputs(), 2):
        found += [
            Removable(each, size(each), "left by a process that was killed")
            for each in _abandoned(folder)
        ]
    return found


def _folders(folder: Path, levels: int) -> list[Path]:
    """A folder and those in it, so many levels deep, in order; none that is reached by a link."""
    found = [folder]
    for name in (
        sorted(each.name for each in scan_folder(folder) if each.is_dir(follow_symlinks=False))
        if levels
        else ()
    ):
        if not name.startswith(".") or name == RECEIPTS:
            found += _folders(folder / name, levels - 1)
    return found


def _abandoned(folder: Path) -> list[Path]:
    """What killed processes left in a folder of outputs/, of a run, or in a run's own."""
    found = sorted(folder / each.name for each in scan_folder(folder))
    at_work = [run.is_active() for run in (Run(folder), Run(folder.parent))]
    return [path for path in found if _is_left(path, any(at_work))]


def _is_left(path: Path, at_work: bool) -> bool:
    """at_work: whether a process works on the run that a path is in."""
    if PART.fullmatch(path.name):
        return is_abandoned(path)
    if path.name.startswith(".verify-") and path.is_dir() and not path.is_symlink():
        inner = [path / each.name for each in scan_folder(path) if re.fullmatch(NAME, each.name)]
        return not any(Run(each).is_active() for each in inner)
    return not at_work and bool(LEFT.fullmatch(path.name))


def gc(dry_run: bool = False) -> list[Removable]:
    """Remove the leftovers; what they were. dry_run: only say."""
    if dry_run:
        return leftovers()
    others = _others()
    for left in others:
        if left.path.name == "checkpoints":  # a training may have begun since it was looked at
            with suppress(RunError), Run(left.path.parent).exclusive():
                remove(left.path)
        else:
            erase(left.path)
    return [*_caches(dry_run=False), *(left for left in others if not os.path.lexists(left.path))]


def size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    if path.is_symlink():
        return path.lstat().st_size
    files = (
        (Path(folder, name) for folder, _, names in os.walk(path) for name in names)
        if path.is_dir()
        else (path,)
    )
    total = 0
    for each in files:
        with suppress(OSError):  # it is gone by now
            total += each.lstat().st_size
    return total
