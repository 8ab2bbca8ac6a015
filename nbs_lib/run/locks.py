"""Locks of a run: one process works on it, and says who it is; a lock goes by itself with the process that holds it."""

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

HOLDER = {"pid": int, "begun": str, "parent": int, "host": str, "since": str, "what": str}
"""What a lock says of its holder."""


class RunError(RuntimeError):
    """A run that cannot be worked on: which, why, and what to do."""


def process_is_gone(folder: Path) -> str:
    """Return what to say where a run's folder went while a stage worked in it."""
    return (
        f"{folder} was moved or removed while a stage worked in it; "
        "move it back, or begin again, and leave it there until the stage has ended"
    )


@contextmanager
def lock(path: Path, patience: float = 0) -> Iterator[None]:
    """A lock held by this process. path: of the lock, in the folder that it is for.

    The lock belongs to the open file: what is forked meanwhile holds it too, so it stays until orphaned ranks are gone, and it
    goes by itself with the last process. What is started by exec, like a compiler, does not hold it.
    patience: seconds to wait for processes to end whose command or server has ended before them.
    Errors: RunError where another process has it, naming it.
    """
    end = time.monotonic() + patience
    path.parent.mkdir(parents=True, exist_ok=True)
    while not (file := _locked(path)):
        holder = _holder(path)
        if not _orphaned(holder) or time.monotonic() > end:
            raise RunError(
                f"{path.parent} is being worked on by another process{_said(holder)}; "
                "wait until it has ended, or take another run"
            )
        time.sleep(0.1)
    with file:
        _sign(file)
        try:
            yield
        finally:
            file.close()
            with (
                suppress(OSError),
                path.open("r+") as again,
            ):  # refused while a forked process still holds it
                fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


def is_locked(path: Path) -> bool:
    """Whether the process that signed a lock is still there; of one of another machine, whether its lock still holds here."""
    holder = _holder(path)
    if not holder or holder["host"] == HOST:
        return bool(holder) and _begun(holder["pid"]) == holder["begun"]
    try:
        with path.open() as file:  # a plain file, for its holder could be read
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except FileNotFoundError:
        return False
    except OSError:  # it holds; or the file system cannot tell
        return True


def _locked(path: Path) -> IO | None:
    """The file, opened and locked; None where another process has it."""
    while True:
        file = path.open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except BlockingIOError:
            file.close()
            return None
        except FileNotFoundError:
            pass
        file.close()  # one that ended just now removed it; the next one is ours to make


def _sign(file: IO):
    """Say in a lock who holds it: for people, and to tell whether it and the one that started it are still there."""
    what = "a notebook" if "ipykernel" in sys.modules else shlex.join(["onepass", *sys.argv[1:]])
    me = {"pid": os.getpid(), "begun": _begun(os.getpid()), "parent": os.getppid(), "host": HOST}
    with suppress(OSError):  # a full disk: the lock holds all the same
        file.truncate(0)
        file.write(
            json.dumps(
                me | {"since": datetime.now(UTC).isoformat(timespec="seconds"), "what": what[:200]}
            )
        )
        file.flush()


def _holder(path: Path) -> dict[str, Any]:
    """What the holder of a lock has said of itself; {} where it has not yet, or what is there is no such thing."""
    try:
        told = read_json(path, 1 << 16)
    except (OSError, ValueError):
        return {}
    whole = isinstance(told, dict) and all(
        isinstance(told.get(name), kind) for name, kind in HOLDER.items()
    )
    return told if whole and 0 < told["pid"] < 1 << 31 and 0 <= told["parent"] < 1 << 31 else {}


def _begun(pid: int) -> str:
    """When a process of this machine began, in ticks since it was booted, which no clock that is set changes; "" for none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _orphaned(holder: dict[str, Any]) -> bool:
    """Whether the one that started the holder of a lock is gone, so that it will end by itself very soon."""
    return bool(holder) and holder["host"] == HOST and not psutil.pid_exists(holder["parent"])


def _said(holder: dict[str, Any]) -> str:
    return (
        printable(
            f", {holder['pid']} on {holder['host']} since {holder['since']} ({holder['what']})"
        )
        if holder
        else ""
    )
