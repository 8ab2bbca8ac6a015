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
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import psutil

from .untrusted_files import read_bounded

PACKAGE = Path(__file__).resolve().parent
ROOT = PACKAGE.parent
"""The project: relative folders are taken from here."""
HOST = re.sub(r"[^\w-]", "-", platform.node())
MAX_JSONL_SIZE = 1 << 30
"""Bytes of a file of JSON lines."""
SAFETENSORS_MODE = 0o600
PART = re.compile(rf"\..+\.{re.escape(HOST)}\.(\d{{1,9}})\.part")


def from_project(path: Path) -> str:
    """A path as it is shown: from the project where it is in it, so that it holds in a copy of the project too."""
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)


def write_atomic(path: Path, content: str | bytes):
    """Write beside and rename: a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = part_of(path)
    try:
        with beside.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def open_to_others(path: Path):
    """Give a file, or all files in a folder, the mode that the user's umask gives new files, where safetensors wrote them.

    It writes for the owner alone, whatever the umask says, so that no other user and no container could read a copy. A file
    of any other mode is left alone: it may be a link to one that belongs to another user.
    """
    files = [
        each
        for each in (path, *path.rglob("*.safetensors"))
        if each.is_file() and not each.is_symlink()
    ]
    for each in files:
        if stat.S_IMODE(each.stat().st_mode) == SAFETENSORS_MODE:
            each.chmod(0o666 & ~_umask())


def _umask() -> int:
    """Return the process' umask; it can be read without being set, as a thread might write meanwhile, on Linux alone."""
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/status").read_text("utf-8").splitlines()
        return int(next(line for line in lines if line.startswith("Umask:")).split()[1], 8)
    os.umask(mask := os.umask(0))
    return mask


def fsync(path: Path):
    """Wait until a file's bytes are on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines; [] without a file. What is no object is left out: half a line that a killed process
    left, or a damaged one."""
    return [
        row for line in whole_lines(path).split(b"\n") if (row := parse_object(line)) is not None
    ]


def whole_lines(path: Path) -> bytes:
    """Return the lines of a file that have their end; empty without a file."""
    try:
        content = read_bounded(path, MAX_JSONL_SIZE)
    except FileNotFoundError:
        return b""
    return content[: content.rfind(b"\n") + 1]


def parse_object(line: bytes) -> dict[str, Any] | None:
    """Return the object of a JSON line; None where it is none."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def write_jsonl(path: Path, rows: list[dict[str, Any]]):
    """Write objects as JSON lines, atomically."""
    write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def append_jsonl(path: Path, row: dict[str, Any]):
    """Add an object to a file of JSON lines: other processes may do so too, and a reader sees all of the line or nothing.

    The file is written anew, for what a killed process left of a line would make one with the next.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        write_atomic(path, whole_lines(path) + json.dumps(row, ensure_ascii=False).encode() + b"\n")


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
def atomic_folder(folder: Path, replace: bool = False) -> Iterator[Path]:
    """An empty folder to fill, which becomes `folder` at the end and is gone after an error.

    replace: in place of the `folder` that is there; without it, one that is there by then is kept, being as good.
    """
    part, old = part_of(folder), part_of(folder.with_name(f"{folder.name}.old"))
    remove_stale_temporaries(folder.parent)
    for left in (part, old):
        erase(left)
    part.mkdir(parents=True)
    try:
        yield part
        open_to_others(part)
        if replace and folder.exists():
            folder.rename(old)
        try:
            part.rename(folder)
        except OSError:
            if replace or not folder.is_dir():
                raise
    finally:
        for left in (part, old):
            erase(left)


def erase(path: Path):
    """Remove a file, a link, or a folder file by file; no link in it is followed. What cannot be removed stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def scan_folder(folder: Path | str) -> list[os.DirEntry]:
    """Return what is directly in a folder; [] where there is none."""
    try:
        with os.scandir(folder) as found:
            return list(found)
    except (FileNotFoundError, NotADirectoryError):
        return []


def files_in(folder: Path) -> list[Path]:
    """Return the files and links directly in a folder of ours, which may be removed; of one that is a link itself, none."""
    if folder.is_symlink():
        return []
    return sorted(
        folder / each.name for each in scan_folder(folder) if not each.is_dir(follow_symlinks=False)
    )


def remove(folder: Path):
    """Take a folder away: out of its place in one step, then file by file."""
    old = part_of(folder.with_name(f"{folder.name}.old"))
    erase(old)
    try:
        folder.rename(old)
    except FileNotFoundError:
        return  # there is none, or another process did
    erase(old)


def remove_stale_temporaries(store: Path):
    """Remove the unfinished folders of processes of this machine that are no more."""
    for path in store.glob(".*.part"):
        if is_left(path):
            erase(path)


def is_left(path: Path) -> bool:
    """Whether a path is the unfinished part of a process of this machine that is no more."""
    owner = PART.fullmatch(path.name)
    return bool(owner) and not psutil.pid_exists(int(owner[1]))


def hardlink_or_copy(path: Path, place: Path):
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
        raise FileExistsError(
            f"{str(path)!r} is in the way of a link to the cache; move it or take another run folder"
        )
    fresh = part_of(path)
    fresh.unlink(missing_ok=True)
    # from where the link really is: its folder may be reached by a link itself
    fresh.symlink_to(
        os.path.relpath(folder.resolve(), path.parent.resolve()), target_is_directory=True
    )
    fresh.replace(path)


def part_of(path: Path) -> Path:
    """Return the hidden place beside a path where this process fills it; see `remove_leftovers`."""
    return path.with_name(f".{path.name}.{HOST}.{os.getpid()}.part")
