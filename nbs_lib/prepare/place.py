"""Folders that appear whole or not at all, and links that change in one step.

A folder is filled under a hidden name beside its place, `.NAME.HOST.PID.part`, and renamed. What a killed process left
behind is removed by the next one on that machine.
"""

import os
import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

HOST = re.sub(r"[^\w-]", "-", platform.node())
PART = re.compile(rf"\..+\.{re.escape(HOST)}\.(\d+)\.part")


@contextmanager
def beside(folder: Path) -> Iterator[Path]:
    """An empty folder to fill; it becomes `folder` at the end, unless that exists by then, and is gone after an error."""
    part = _part(folder)
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        try:
            part.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster, and its folder is as good
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def remove(folder: Path):
    """Take a folder away: out of its place in one step, then file by file."""
    part = _part(folder)
    shutil.rmtree(part, ignore_errors=True)
    try:
        folder.rename(part)
    except FileNotFoundError:
        return  # another process did
    shutil.rmtree(part, ignore_errors=True)


def remove_leftovers(store: Path):
    """Remove the unfinished folders of processes of this machine that are no more."""
    for path in store.glob(".*.part"):
        owner = PART.fullmatch(path.name)
        if owner and not psutil.pid_exists(int(owner[1])):
            shutil.rmtree(path, ignore_errors=True)


def link(path: Path, folder: Path):
    """Make `path` a relative link to `folder`, in one step, whatever it linked to before.

    Errors: FileExistsError where `path` is a real folder or file, which is left alone.
    """
    if path.exists() and not path.is_symlink():
        raise FileExistsError(f"{str(path)!r} is in the way of a link to the cache; move it or take another run folder")
    fresh = path.with_name(f".{path.name}.{os.getpid()}.part")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(os.path.relpath(folder, path.parent), target_is_directory=True)
    fresh.replace(path)


def _part(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.{HOST}.{os.getpid()}.part")
