"""Removal of runs by name, and of leftovers that nothing needs."""

import fnmatch
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ...config.validation import ParameterError
from ...files import PART, erase, is_abandoned, remove, scan_folder
from ...run.run import RECIPE_LOCK, Run, RunError
from ..paths import RUN_NAME, find_run, outputs, run_names
from .compiled_extensions import stale_extensions
from .index_page import refresh

# temporary files of a process at work on a run, whose names do not tell the process
TEMPORARY = re.compile(
    r"\.space|\.step-\d+\.part|\.(kept|dropped)\.parquet\.\d+\.part|[0-9a-f]{24}\.\d+\.part"
)
# the only hidden folder, beside the caches, that may hold temporary files
RECEIPTS = ".receipts"
WILDCARDS = "*?["


@dataclass(frozen=True)
class Removable:
    """A path that nothing needs, its size in bytes, and why nothing needs it."""

    path: Path
    bytes: int
    why: str


def remove_run(patterns: list[str], dry_run: bool = False) -> list[str]:
    """Remove runs, and the tables of sweeps, and return their names. Caches stay, see `gc`.

    patterns: names, or patterns such as `demo-sweep*`
    dry_run: remove nothing

    Errors, before anything is removed: ParameterError for a pattern that no name matches; RunError
    if a process works on one of the runs.
    """
    names = []
    for pattern in patterns:
        names += [name for name in _matching_names(pattern) if name not in names]
    for name in names:
        _check_idle(Run(outputs() / name))
    if dry_run:
        return names
    for name in names:
        folder = outputs() / name
        # only the link goes, because the folder behind it may not be ours
        folder.unlink() if folder.is_symlink() else remove(folder)
    with suppress(OSError):
        refresh()
    return names


def _check_idle(run: Run):
    if run.is_active():
        # a command holds this lock, and the lock's own error names it
        with run.exclusive(RECIPE_LOCK):
            pass
        raise RunError(f"{run.folder} is being worked on by a notebook; wait until it has ended")


def _matching_names(pattern: str) -> list[str]:
    sweeps = [path.parent.name for path in outputs().glob("[!.]*/sweep.json")]
    matches = set(fnmatch.filter([*run_names(), *sweeps], pattern.rstrip("/")))
    if matches:
        return sorted(matches)
    if any(sign in pattern for sign in WILDCARDS):
        raise ParameterError(f"run: given {pattern!r}; no run's name fits it; see `onepass list`")
    return [find_run(pattern).name]


def gc(dry_run: bool = False) -> list[Removable]:
    """Remove what nothing needs and return it. dry_run: remove nothing.

    Caches that no run uses, checkpoints of finished trainings, extensions of environments that are
    gone, and temporary files of killed processes.
    """
    # found before any of it is removed: a size is wanted of each
    leftovers = list(_leftovers())
    if dry_run:
        return [*_unused_caches(dry_run=True), *leftovers]
    for leftover in leftovers:
        if leftover.path.name == "checkpoints":
            # a training may have begun since, and would hold the run's lock
            with suppress(RunError), Run(leftover.path.parent).exclusive():
                remove(leftover.path)
        else:
            erase(leftover.path)
    removed = [leftover for leftover in leftovers if not os.path.lexists(leftover.path)]
    return [*_unused_caches(dry_run=False), *removed]


def _unused_caches(dry_run: bool) -> list[Removable]:
    from ...prepare.store.admin import prune_caches

    store = outputs() / "cache"
    return [
        Removable(store / cache.key, cache.bytes, "a cache that no run uses")
        for cache in prune_caches(store, dry_run)
    ]


def _leftovers() -> Iterator[Removable]:
    for name in run_names():
        run = Run(outputs() / name)
        if _has_old_checkpoints(run):
            why = "checkpoints of a training that is done"
            yield Removable(run.checkpoints, size(run.checkpoints), why)
    for path in stale_extensions():
        yield Removable(path, size(path), "compiled for an environment that is gone")
    for folder in _folders(outputs(), 2):
        for path in _abandoned_paths(folder):
            yield Removable(path, size(path), "left by a process that was killed")


def _has_old_checkpoints(run: Run) -> bool:
    # nothing is removed through a link
    if run.folder.is_symlink() or run.is_active():
        return False
    with suppress(RunError):
        run.check_links()
        return run.stage_record("train").get("status") == "done" and run.checkpoints.is_dir()
    return False


def _folders(folder: Path, levels: int) -> Iterator[Path]:
    """Yield a folder and those in it, `levels` deep, in order, without following links."""
    yield folder
    if not levels:
        return
    for entry in sorted(scan_folder(folder), key=lambda entry: entry.name):
        # other hidden folders are being made or removed
        hidden = entry.name.startswith(".") and entry.name != RECEIPTS
        if entry.is_dir(follow_symlinks=False) and not hidden:
            yield from _folders(folder / entry.name, levels - 1)


def _abandoned_paths(folder: Path) -> list[Path]:
    """Return what killed processes left in a folder: outputs/, a run, or a folder in a run."""
    paths = sorted(folder / entry.name for entry in scan_folder(folder))
    # asked after the listing: a process that began in between is seen as active
    active = Run(folder).is_active() or Run(folder.parent).is_active()
    return [path for path in paths if _is_abandoned(path, active)]


def _is_abandoned(path: Path, active: bool) -> bool:
    """active: True if a process works on the run that the path is in."""
    if PART.fullmatch(path.name):
        return is_abandoned(path)
    if path.name.startswith(".verify-") and path.is_dir() and not path.is_symlink():
        names = [entry.name for entry in scan_folder(path)]
        runs = [Run(path / name) for name in names if re.fullmatch(RUN_NAME, name)]
        return not any(run.is_active() for run in runs)
    return not active and bool(TEMPORARY.fullmatch(path.name))


def size(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    if path.is_symlink() or not path.is_dir():
        return _file_size(path)
    files = [Path(folder, name) for folder, _, names in os.walk(path) for name in names]
    return sum(map(_file_size, files))


def _file_size(path: Path) -> int:
    # another process may have removed it
    with suppress(OSError):
        return path.lstat().st_size
    return 0
