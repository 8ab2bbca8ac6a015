"""Locks of a run: one process at a time works on it, and the lock's file names that process.

The lock is flock's, not the filelock package's. A lock must hold until the ranks that its owner
forked have ended, even if the owner was killed; filelock closes the lock in every forked child.
"""

import fcntl
import json
import os
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import psutil

from ..files import HOST
from ..untrusted_files import read_json
from .terminal_text import printable

# The fields of the owner in a lock's file, with their types.
OWNER_FIELDS = {"pid": int, "begun": str, "parent": int, "host": str, "since": str, "what": str}
MAX_PID = 1 << 31  # the kernel's own limit is lower
MAX_LOCK_SIZE = 1 << 16  # bytes of a lock's file
POLL_SECONDS = 0.1


class RunError(RuntimeError):
    """A run that cannot be worked on: which, why, and what to do."""


def folder_gone_message(folder: Path) -> str:
    """Return the error message for a run's folder that vanished while a stage worked in it."""
    return (
        f"{folder} was moved or removed while a stage worked in it; "
        "move it back, or begin again, and leave it there until the stage has ended"
    )


@contextmanager
def lock(path: Path, patience: float = 0) -> Iterator[None]:
    """Hold a lock on the folder that `path` is in.

    The lock belongs to the open file. Forked processes hold it too, so it lasts until orphaned
    ranks have ended; programs started by exec, like a compiler, do not hold it.

    path: the lock's file
    patience: seconds to wait for an owner whose own parent has ended, because it ends soon

    Errors: RunError if another process holds the lock, with its name
    """
    deadline = time.monotonic() + patience
    path.parent.mkdir(parents=True, exist_ok=True)
    while not (file := _try_lock(path)):
        owner = _read_owner(path)
        if not _is_orphaned(owner) or time.monotonic() > deadline:
            raise RunError(
                f"{path.parent} is being worked on by another process{_describe(owner)}; "
                "wait until it has ended, or take another run"
            )
        time.sleep(POLL_SECONDS)
    with file:
        _write_owner(file)
        try:
            yield
        finally:
            file.close()
            # locked again before it is removed: this fails while a forked process still holds it
            with suppress(OSError), path.open("r+") as released:
                fcntl.flock(released, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


def is_locked(path: Path) -> bool:
    """Return True while a lock's owner runs; on another machine, while flock refuses the lock."""
    owner = _read_owner(path)
    if not owner:
        return False
    if owner["host"] == HOST:
        return _start_ticks(owner["pid"]) == owner["begun"]
    try:
        # a shared lock, because two commands may test at once
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except FileNotFoundError:
        return False
    except OSError:  # locked, or the file system cannot tell
        return True


def _try_lock(path: Path) -> IO | None:
    """Return the opened and locked file; None if another process holds it."""
    while True:
        # not "w", which would erase the owner's name while the lock is held
        file = path.open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # the file that was locked may have been removed and created again in between
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except BlockingIOError:
            file.close()
            return None
        except FileNotFoundError:
            pass
        # an owner that ended just now removed the file; the next attempt creates a new one
        file.close()


def _write_owner(file: IO):
    """Write this process into its lock's file."""
    command = shlex.join(["onepass", *sys.argv[1:]])
    owner = {
        "pid": os.getpid(),
        # a process number is used again after a while; together with the start it is unique
        "begun": _start_ticks(os.getpid()),
        "parent": os.getppid(),
        "host": HOST,
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "what": "a notebook" if "ipykernel" in sys.modules else command[:200],
    }
    with suppress(OSError):  # a full disk: the lock holds without the owner's name
        file.truncate(0)
        file.write(json.dumps(owner))
        file.flush()


def _read_owner(path: Path) -> dict[str, Any]:
    """Return the owner in a lock's file; {} if it is missing, unfinished or damaged."""
    try:
        owner = read_json(path, MAX_LOCK_SIZE)
    except (OSError, ValueError):
        return {}
    if not isinstance(owner, dict):
        return {}
    if not all(isinstance(owner.get(name), kind) for name, kind in OWNER_FIELDS.items()):
        return {}
    return owner if 0 < owner["pid"] < MAX_PID and 0 <= owner["parent"] < MAX_PID else {}


def _start_ticks(pid: int) -> str:
    """Return a process's start in ticks since boot; "" if there is no such process."""
    # ticks, because a clock that is set would change a time of day
    try:
        status = Path(f"/proc/{pid}/stat").read_text("utf-8")
        # the name in brackets may hold spaces: fields are counted after it
        return status.rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _is_orphaned(owner: dict[str, Any]) -> bool:
    """Return True if the process that started the owner has ended, so that the owner ends soon."""
    return bool(owner) and owner["host"] == HOST and not psutil.pid_exists(owner["parent"])


def _describe(owner: dict[str, Any]) -> str:
    if not owner:
        return ""
    return printable(
        f", {owner['pid']} on {owner['host']} since {owner['since']} ({owner['what']})"
    )
