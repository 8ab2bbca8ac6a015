"""The administration of outputs/cache: caches listed, verified, and pruned if no run uses them."""

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from ...cache.format import META, CacheError, damaged_files, read_cache_metadata
from ...files import remove, scan_folder
from .database import Database
from .locks import is_building, lock_build, removing
from .receipts import Receipts


@dataclass(frozen=True)
class StoredCache:
    """A cache, or the rest of one that was being built.

    bytes: on the disk, without those shared with other caches.
    runs: names of the runs that use it.
    answers: states of the teacher's predictions, "" without any.
    fault: why it cannot be read.
    """

    key: str
    bytes: int
    runs: list[str]
    examples: int = 0
    base: str = ""
    answers: str = ""
    fault: str = ""


def stored_caches(store: Path) -> list[StoredCache]:
    """Return every cache of the store, the largest first.

    A file that several caches share counts for the first of them.
    """
    users = _users(store)
    counted = set()
    caches = []
    for folder in _folders(store):
        size = _size(folder, counted)
        caches.append(_describe(folder, size, users.get(folder.name, [])))
    return sorted(caches, key=lambda cache: -cache.bytes)


def verify_caches(store: Path) -> dict[str, list[str]]:
    """Return the missing or damaged files of each cache; [] for a whole one."""
    damaged = {}
    for folder in _folders(store):
        if folder.name.startswith("."):
            continue
        try:
            damaged[folder.name] = damaged_files(folder, read_cache_metadata(folder))
        except CacheError:
            damaged[folder.name] = [META]  # without it, the other files cannot be checked
    return damaged


def prune_caches(store: Path, dry_run: bool = False) -> list[StoredCache]:
    """Remove caches that no run links to, and the rests of builds that no process works on.

    dry_run: remove nothing. Returns what was, or would be, removed.
    """
    # A lock in a missing store would make its folder.
    if not store.is_dir():
        return []
    removed = []
    with removing(store) as alone:
        # A build takes shards from caches that no run uses.
        busy = not alone or is_building(store)
        for cache in stored_caches(store):
            unfinished = cache.key.startswith(".")
            if cache.runs or (busy and not unfinished):
                continue
            folder = store / cache.key
            # The lock is checked for each: a build may begin at any moment.
            with lock_build(folder, wait=False) as free:
                if free:
                    removed.append(cache)
                if free and not dry_run:
                    remove(folder)
        if alone and not dry_run:
            _forget_receipts(store)
    return removed


def _forget_receipts(store: Path):
    database = Database(store)
    try:
        keys = {folder.name for folder in _folders(store)}
        Receipts(store, database).forget_without(keys)
    finally:
        database.close()


def _users(store: Path) -> dict[str, list[str]]:
    """Return the names of the runs that link to each cache, by its key."""
    users = {}
    own_path = os.path.realpath(store)
    for run in sorted(entry.name for entry in scan_folder(store.parent)):
        link = store.parent / run / "cache"
        target = os.path.realpath(link)  # unlike `resolve`, it accepts links in a circle
        if os.path.islink(link) and os.path.dirname(target) == own_path:
            users.setdefault(os.path.basename(target), []).append(run)
    return users


def _folders(store: Path) -> list[Path]:
    """Return caches and the rests of builds. A link is not followed: its target is not ours."""
    folders = [entry for entry in scan_folder(store) if entry.is_dir(follow_symlinks=False)]
    names = sorted(entry.name for entry in folders)
    # Other hidden folders, such as receipts, are not caches.
    return [store / name for name in names if re.match(r"[^.]|\.building-", name)]


def _size(folder: Path, counted: set[int]) -> int:
    """Return the bytes of a folder's files. counted: inodes of files that count no more."""
    size = 0
    for path in folder.rglob("*"):
        try:
            status = path.lstat()
        except FileNotFoundError:  # the cache is being built
            continue
        # Caches share equal shards as links to one file, which takes its space once.
        if stat.S_ISREG(status.st_mode) and status.st_ino not in counted:
            counted.add(status.st_ino)
            size += status.st_size
    return size


def _describe(folder: Path, size: int, runs: list[str]) -> StoredCache:
    if folder.name.startswith("."):
        fault = "being built, or left by a build that was cut off"
        return StoredCache(folder.name, size, runs, fault=fault)
    try:
        metadata = read_cache_metadata(folder)
    except CacheError:
        fault = "damaged, or of an older version"
        return StoredCache(folder.name, size, runs, fault=fault)
    states = str((metadata["answers"] or {}).get("states", ""))
    examples = metadata["examples"]
    return StoredCache(folder.name, size, runs, examples, metadata["base"], states)
