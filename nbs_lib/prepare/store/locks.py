"""Locks of a store: one process builds a cache, several take caches, one removes them.

All are of flock(2): a lock ends with its process, however that ends.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

# This file stays: a process that waits for the lock of a removed file would wait for nobody.
TAKING = ".taking.lock"


def build_lock_path(part: Path) -> Path:
    """Return the lock of a folder in which a cache is built."""
    return part.with_name(f"{part.name}.lock")


@contextmanager
def lock_build(part: Path, wait: bool) -> Iterator[bool]:
    """Hold the lock of a build, and remove it afterwards.

    part: the folder in which the cache is built.
    wait: whether to wait for a process that holds the lock; without it, False is yielded then.
    """
    path = build_lock_path(part)
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with path.open("a") as file:
            if not _try_lock(file):
                if not wait:
                    yield False
                    return
                # Said once, so that a waiting run does not look like one that hangs.
                print("another process is building this cache; waiting for it", flush=True)
                fcntl.flock(file, fcntl.LOCK_EX)
            # The holder removed its file at the end. Then there is another file by now, or none.
            if _is_same_file(file, path):
                try:
                    yield True
                finally:
                    path.unlink(missing_ok=True)
                return


def is_building(store: Path) -> bool:
    """Return whether any process builds a cache."""
    for path in store.glob(".building-*.lock"):
        with path.open("a") as file:
            if not _try_lock(file):
                return True
            path.unlink(missing_ok=True)  # left by a process that was killed
    return False


@contextmanager
def in_use(store: Path) -> Iterator[None]:
    """Keep caches from being removed until the run links to its own. Processes share this."""
    store.mkdir(parents=True, exist_ok=True)
    with (store / TAKING).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


@contextmanager
def removing(store: Path) -> Iterator[bool]:
    """Keep processes from taking caches meanwhile; yield False if one does already."""
    with (store / TAKING).open("a") as file:
        yield _try_lock(file)


def _is_same_file(file: TextIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _try_lock(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
