"""Atomic files and folders, JSON lines, hashes.

Content is written under a hidden name beside its destination, `.NAME.HOST.PID.part`, and renamed
when complete. The part of a killed process is removed by the next process on that machine.
"""

import errno
import fcntl
import json
import os
import platform
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import psutil

from .project import PACKAGE as PACKAGE
from .project import ROOT as ROOT
from .untrusted_files import read_bounded

# in temporary names, because a process number means nothing on another machine
HOST = re.sub(r"[^\w-]", "-", platform.node())
MAX_JSONL_SIZE = 1 << 30  # bytes
SAFETENSORS_MODE = 0o600  # whatever the umask is
PART = re.compile(rf"\..+\.{re.escape(HOST)}\.(\d{{1,9}})\.part")
JsonObject = dict[str, Any]  # the object in a JSON line


def from_project(path: Path) -> str:
    """Return a path for display: relative to the project if it is inside, otherwise as it is."""
    # a relative path also holds in a copy of the project
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)


def temporary_path(path: Path) -> Path:
    """Return the hidden path beside `path` where this process writes its new content."""
    return path.with_name(f".{path.name}.{HOST}.{os.getpid()}.part")


def write_atomic(path: Path, content: str | bytes):
    """Write a file so that a reader sees the old content or the new content, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = temporary_path(path)
    try:
        with part.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            # before the rename: after a power loss the new name could hold no content
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def fsync(path: Path):
    """Wait until a file's bytes are on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def open_to_others(path: Path):
    """Give a safetensors file, or all of them in a folder, the mode that the umask allows."""
    for file in (path, *path.rglob("*.safetensors")):
        if not file.is_file() or file.is_symlink():
            continue
        # safetensors writes 0600 whatever the umask is, and no other user or container could read a
        # copy. Any other mode stays: the file may be a hard link that belongs to another user.
        if stat.S_IMODE(file.stat().st_mode) == SAFETENSORS_MODE:
            file.chmod(0o666 & ~_umask())


def _umask() -> int:
    """Return the process's umask."""
    # Linux tells it without a change; elsewhere it must be set to be read, and a thread that writes
    # at that moment gets the wrong mode
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/status").read_text("utf-8").splitlines()
        line = next(line for line in lines if line.startswith("Umask:"))
        return int(line.split()[1], 8)
    mask = os.umask(0)
    os.umask(mask)
    return mask


def whole_lines(path: Path) -> bytes:
    """Return the lines of a file up to the last newline; empty without a file."""
    with suppress(FileNotFoundError):
        content = read_bounded(path, MAX_JSONL_SIZE)
        # a killed process may leave half a line
        return content[: content.rfind(b"\n") + 1]
    return b""


def parse_object(line: bytes) -> JsonObject | None:
    """Return the object in a JSON line; None if there is none."""
    with suppress(ValueError, RecursionError):
        row = json.loads(line)
        return row if isinstance(row, dict) else None


def read_jsonl(
    path: Path, parse: Callable[[bytes], JsonObject | None] = parse_object
) -> list[JsonObject]:
    """Return what `parse` makes of a file's JSON lines besides None; [] without a file."""
    rows = map(parse, whole_lines(path).split(b"\n"))
    return [row for row in rows if row is not None]


def write_jsonl(path: Path, rows: list[JsonObject]):
    """Write objects as JSON lines, atomically."""
    write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def append_jsonl(path: Path, row: JsonObject):
    """Add an object to a file of JSON lines; several processes may do so at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(row, ensure_ascii=False).encode() + b"\n"
    with path.with_name(f".{path.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # not appended in place: half a line of a killed process would merge with the new one
        write_atomic(path, whole_lines(path) + line)


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    digest = sha256()
    with path.open("rb") as file:
        # in blocks, because a shard may be larger than memory
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def value_hash(value: Any) -> str:
    """Return the SHA-256 of a plain value's canonical JSON, in hex."""
    # sorted keys, so that equal values have equal text
    return sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


@contextmanager
def atomic_folder(folder: Path, replace: bool = False) -> Iterator[Path]:
    """Yield an empty folder that is renamed to `folder` on success and removed on error.

    replace: overwrite an existing `folder`; otherwise the existing one stays, being as good
    """
    part = temporary_path(folder)
    old = _old_path(folder)
    remove_stale_temporaries(folder.parent)
    # of an earlier process with the same number
    erase(part)
    erase(old)
    part.mkdir(parents=True)
    try:
        yield part
        open_to_others(part)
        if replace and folder.exists():
            folder.rename(old)
        try:
            part.rename(folder)
        except OSError:
            # another process was faster
            if replace or not folder.is_dir():
                raise
    finally:
        erase(part)
        erase(old)


def erase(path: Path):
    """Remove a file, a link or a folder without following links; what cannot be removed stays."""
    if path.is_dir() and not path.is_symlink():
        # a leftover that stays is removed another time; it must not fail a stage
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def remove(folder: Path):
    """Remove a folder: rename it in one step, then erase it file by file."""
    old = _old_path(folder)
    erase(old)
    # it may be missing, or another process may remove it at the same time
    with suppress(FileNotFoundError):
        folder.rename(old)
        erase(old)


def _old_path(folder: Path) -> Path:
    return temporary_path(folder.with_name(f"{folder.name}.old"))


def scan_folder(folder: Path | str) -> list[os.DirEntry]:
    """Return the entries of a folder; [] if it does not exist."""
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        return list(entries)
    return []


def files_in(folder: Path) -> list[Path]:
    """Return the files and links directly in a folder; [] if the folder itself is a link."""
    # callers remove these files: a link could lead to a folder that is not ours
    if folder.is_symlink():
        return []
    files = [entry for entry in scan_folder(folder) if not entry.is_dir(follow_symlinks=False)]
    return sorted(folder / file.name for file in files)


def remove_stale_temporaries(store: Path):
    """Remove the unfinished folders of this machine's ended processes."""
    for path in filter(is_abandoned, store.glob(".*.part")):
        erase(path)


def is_abandoned(path: Path) -> bool:
    """Return True for the temporary path of an ended process of this machine."""
    # of another machine it is not known whether the process runs: its parts stay
    owner = PART.fullmatch(path.name)
    return bool(owner) and not psutil.pid_exists(int(owner[1]))


def hardlink_or_copy(path: Path, copy: Path):
    """Give a file a second name, or copy it if there are no hard links. Errors: OSError."""
    try:
        os.link(path, copy)
    except OSError as failure:
        # a copy would fail too, after it filled the rest of the disk
        if failure.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        shutil.copyfile(path, copy)


def link(path: Path, folder: Path):
    """Make `path` a relative link to `folder` in one step. Errors: FileExistsError."""
    # a link is replaced, but a real file or folder stays
    if path.exists() and not path.is_symlink():
        hint = "is in the way of a link to the cache; move it or take another run folder"
        raise FileExistsError(f"{str(path)!r} {hint}")
    part = temporary_path(path)
    part.unlink(missing_ok=True)
    # resolved, because the folder of the link may itself be reached by a link
    target = os.path.relpath(folder.resolve(), path.parent.resolve())
    part.symlink_to(target, target_is_directory=True)
    part.replace(path)
