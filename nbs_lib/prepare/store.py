"""All caches of a folder, outputs/cache: what there is, whether it is whole, and which of it no run uses any more."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..files import remove
from .cache import CacheError, damaged, read_meta
from .receipts import forget_without


@dataclass(frozen=True)
class Stored:
    """A cache, or what is left of one that was being built. bytes: on the disk, without what others share with it;
    runs: the names of those that use it; fault: why it cannot be read."""

    key: str
    bytes: int
    runs: list[str]
    examples: int = 0
    base: str = ""
    answers: str = ""
    fault: str = ""


def stored(store: Path) -> list[Stored]:
    """Every cache of the store, the largest first; files that several share count for the first of them."""
    users: dict[str, list[str]] = {}
    for run in sorted(store.parent.iterdir()) if store.parent.exists() else []:
        if (run / "cache").is_symlink() and (target := (run / "cache").resolve()).parent == store.resolve():
            users.setdefault(target.name, []).append(run.name)
    seen: set[int] = set()
    found = [_of(folder, users.get(folder.name, []), seen) for folder in _folders(store)]
    return sorted(found, key=lambda each: -each.bytes)


def verify(store: Path) -> dict[str, list[str]]:
    """Of each cache the files that are missing or damaged; [] for a whole one."""
    found = {}
    for folder in _folders(store):
        if folder.name.startswith("."):
            continue
        try:
            found[folder.name] = damaged(folder, read_meta(folder))
        except CacheError:
            found[folder.name] = ["cache.json"]
    return found


def prune(store: Path, only_say: bool = False) -> list[Stored]:
    """Remove the caches that no run links to, and what was left of builds that no process works on. What was removed.

    While a process builds one, all others stay: it takes from them what they have already.
    only_say: remove nothing.
    """
    gone = []
    at_work = any(not _free(lock) for lock in store.glob(".building-*.lock"))
    for each in stored(store):
        folder = store / each.key
        if each.runs or (at_work and not each.key.startswith(".")):
            continue
        with _locked(folder.with_name(f"{folder.name}.lock")) as free:
            if free:
                gone.append(each)
            if free and not only_say:
                remove(folder)
    if not only_say:
        forget_without(store, {folder.name for folder in _folders(store)})
    return gone


def _folders(store: Path) -> list[Path]:
    found = sorted(store.iterdir()) if store.exists() else []
    return [each for each in found if each.is_dir() and (not each.name.startswith(".") or each.name.startswith(".building-"))]


def _of(folder: Path, runs: list[str], seen: set[int]) -> Stored:
    size = 0
    for path in folder.rglob("*"):
        try:
            told = path.lstat()
        except FileNotFoundError:  # of one that is being built
            continue
        if path.is_file() and told.st_ino not in seen:
            seen.add(told.st_ino)
            size += told.st_size
    if folder.name.startswith("."):
        return Stored(folder.name, size, runs, fault="being built, or left by a build that was cut off")
    try:
        meta = read_meta(folder)
        answers = (meta["answers"] or {}).get("states", "")
        return Stored(folder.name, size, runs, meta["examples"], meta["base"], answers)
    except (CacheError, KeyError):
        return Stored(folder.name, size, runs, fault="damaged, or of an older version")


def _free(lock: Path) -> bool:
    with _locked(lock) as free:
        return free


@contextmanager
def _locked(lock: Path) -> Iterator[bool]:
    """The lock of a build, held meanwhile, and gone afterwards; False where a process holds it."""
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            lock.unlink(missing_ok=True)  # who waits for it looks whether it is still there
