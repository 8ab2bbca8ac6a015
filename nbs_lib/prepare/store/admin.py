"""All caches of a folder, outputs/cache: what there is, whether it is whole, and which of it no run uses any more."""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ...cache.format import CacheError, damaged_files, read_cache_metadata
from ...files import remove, scan_folder
from .receipts import forget_without

TAKING = ".taking.lock"
"""In the store: shared by processes that take a cache for their run, and held by the one that removes caches. It stays, for
one that waits for a lock must not wait for a removed file's."""


@dataclass(frozen=True)
class StoredCache:
    """A cache, or what is left of one that was being built. bytes: on the disk, without what others share with it;
    runs: the names of those that use it; fault: why it cannot be read."""

    key: str
    bytes: int
    runs: list[str]
    examples: int = 0
    base: str = ""
    answers: str = ""
    fault: str = ""


def stored_caches(store: Path) -> list[StoredCache]:
    """Every cache of the store, the largest first; files that several share count for the first of them."""
    users: dict[str, list[str]] = {}
    own = os.path.realpath(store)
    for run in sorted(each.name for each in scan_folder(store.parent)):
        path = store.parent / run / "cache"
        target = os.path.realpath(
            path
        )  # unlike `resolve`, it does not mind links that lead in a circle
        if os.path.islink(path) and os.path.dirname(target) == own:
            users.setdefault(os.path.basename(target), []).append(run)
    seen: set[int] = set()
    found = [_of(folder, users.get(folder.name, []), seen) for folder in _folders(store)]
    return sorted(found, key=lambda each: -each.bytes)


def verify_caches(store: Path) -> dict[str, list[str]]:
    """Of each cache the files that are missing or damaged; [] for a whole one."""
    found = {}
    for folder in _folders(store):
        if folder.name.startswith("."):
            continue
        try:
            found[folder.name] = damaged_files(folder, read_cache_metadata(folder))
        except CacheError:
            found[folder.name] = ["cache.json"]
    return found


def prune_caches(store: Path, only_say: bool = False) -> list[StoredCache]:
    """Remove the caches that no run links to, and what was left of builds that no process works on. What was removed.

    While a process builds one, all others stay: it takes from them what they have already.
    only_say: remove nothing.
    """
    if not store.is_dir():
        return []
    gone = []
    with _removing(store) as alone:
        at_work = not alone or any(not _free(lock) for lock in store.glob(".building-*.lock"))
        for each in stored_caches(store):
            folder = store / each.key
            if each.runs or (at_work and not each.key.startswith(".")):
                continue
            with _locked(folder.with_name(f"{folder.name}.lock")) as free:
                if free:
                    gone.append(each)
                if free and not only_say:
                    remove(folder)
        if alone and not only_say:
            forget_without(store, {folder.name for folder in _folders(store)})
    return gone


@contextmanager
def in_use(store: Path) -> Iterator[None]:
    """Keep `prune` from removing caches, until the one that is taken has its run's link. Several processes may do so."""
    store.mkdir(parents=True, exist_ok=True)
    with (store / TAKING).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


@contextmanager
def _removing(store: Path) -> Iterator[bool]:
    """Keep processes from taking caches meanwhile; False where one does already."""
    with (store / TAKING).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _folders(store: Path) -> list[Path]:
    """Caches, and what builds have left; what is a link is none of ours."""
    found = sorted(each.name for each in scan_folder(store) if each.is_dir(follow_symlinks=False))
    return [
        store / name for name in found if not name.startswith(".") or name.startswith(".building-")
    ]


def _of(folder: Path, runs: list[str], seen: set[int]) -> StoredCache:
    size = 0
    for path in folder.rglob("*"):
        try:
            told = path.lstat()
        except FileNotFoundError:  # of one that is being built
            continue
        if stat.S_ISREG(told.st_mode) and told.st_ino not in seen:
            seen.add(told.st_ino)
            size += told.st_size
    if folder.name.startswith("."):
        return StoredCache(
            folder.name, size, runs, fault="being built, or left by a build that was cut off"
        )
    try:
        meta = read_cache_metadata(folder)
        answers = str((meta["answers"] or {}).get("states", ""))
        return StoredCache(folder.name, size, runs, meta["examples"], meta["base"], answers)
    except CacheError:
        return StoredCache(folder.name, size, runs, fault="damaged, or of an older version")


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
