"""Files and folders that appear whole or not at all, their hashes, and the project's place on the disk.

Each is filled under a hidden name beside its place, `.NAME.HOST.PID.part`, and renamed; what a killed process left of a
folder is removed by the next one on that machine.
"""

import errno
import fcntl
import json
import os
import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import psutil

PACKAGE = Path(__file__).resolve().parent
ROOT = PACKAGE.parent
"""The project: relative folders are taken from here."""
HOST = re.sub(r"[^\w-]", "-", platform.node())
PART = re.compile(rf"\..+\.{re.escape(HOST)}\.(\d+)\.part")


def from_project(path: Path) -> str:
    """A path as it is shown: from the project where it is in it, so that it holds in a copy of the project too."""
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)


def write_atomic(path: Path, content: str | bytes):
    """Write beside and rename: a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = _part(path)
    try:
        with beside.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def synced(path: Path):
    """Wait until a file's bytes are on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines, but for half a line that a killed process left at its end; [] without a file."""
    # not splitlines: a caption may hold U+2028 and its like, which end a line for str but not for JSON lines
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].split("\n") if line]


def write_lines(path: Path, rows: list[dict[str, Any]]):
    """Write objects as JSON lines, atomically."""
    write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def add_line(path: Path, row: dict[str, Any]):
    """Add an object to a file of JSON lines: other processes may do so too, and a reader sees all of the line or nothing.

    The file is written anew, for what a killed process left of a line would make one with the next.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        write_lines(path, [*read_lines(path), row])


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def value_hash(value: Any) -> str:
    """SHA-256 of a plain value's canonical JSON, in hex."""
    return sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


@contextmanager
def beside(folder: Path, replace: bool = False) -> Iterator[Path]:
    """An empty folder to fill, which becomes `folder` at the end and is gone after an error.

    replace: in place of the `folder` that is there; without it, one that is there by then is kept, being as good.
    """
    part, old = _part(folder), _part(folder.with_name(f"{folder.name}.old"))
    remove_leftovers(folder.parent)
    for left in (part, old):
        shutil.rmtree(left, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        if replace and folder.exists():
            folder.rename(old)
        try:
            part.rename(folder)
        except OSError:
            if replace or not folder.is_dir():
                raise
    finally:
        for left in (part, old):
            shutil.rmtree(left, ignore_errors=True)


def remove(folder: Path):
    """Take a folder away: out of its place in one step, then file by file."""
    old = _part(folder.with_name(f"{folder.name}.old"))
    shutil.rmtree(old, ignore_errors=True)
    try:
        folder.rename(old)
    except FileNotFoundError:
        return  # there is none, or another process did
    shutil.rmtree(old, ignore_errors=True)


def remove_leftovers(store: Path):
    """Remove the unfinished folders of processes of this machine that are no more."""
    for path in store.glob(".*.part"):
        owner = PART.fullmatch(path.name)
        if owner and not psutil.pid_exists(int(owner[1])):
            shutil.rmtree(path, ignore_errors=True)


def link_or_copy(path: Path, place: Path):
    """The same file under another name, or a copy where the disk knows no such thing. Errors: OSError of a full disk."""
    try:
        os.link(path, place)
    except OSError as failure:
        if failure.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        shutil.copyfile(path, place)


def link(path: Path, folder: Path):
    """Make `path` a relative link to `folder`, in one step, whatever it linked to before.

    Errors: FileExistsError where `path` is a real folder or file, which is left alone.
    """
    if path.exists() and not path.is_symlink():
        raise FileExistsError(f"{str(path)!r} is in the way of a link to the cache; move it or take another run folder")
    fresh = _part(path)
    fresh.unlink(missing_ok=True)
    # from where the link really is: its folder may be reached by a link itself
    fresh.symlink_to(os.path.relpath(folder.resolve(), path.parent.resolve()), target_is_directory=True)
    fresh.replace(path)


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.{HOST}.{os.getpid()}.part")
