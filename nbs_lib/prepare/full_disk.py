"""A disk that fills up while a cache is built: what was written, and how much more is needed."""

import errno
from pathlib import Path

from ..run.disk_space import free_space

FULL = (errno.ENOSPC, errno.EDQUOT)  # of the disk, and of the user's share of it


class FullError(RuntimeError):
    """A full disk: how much was written and how much more is needed."""


def explain_full_disk(store: Path, part: Path, finished: int, total: int | None) -> str:
    """Return what was written to a full disk, and about how much more is needed.

    part: the folder of the build.
    finished: examples that were kept so far.
    total: examples that are expected at most, or None.
    """
    # A disk may be full of files while bytes are free: then no amount of MiB helps.
    free = free_space(store)
    if "inode" in free:
        return (
            f"the disk of {store} takes no more files: {free}; "
            "remove files and run this stage again: it goes on"
        )
    n_bytes = sum(map(_size, part.rglob("*")))
    written = n_bytes / 2**20
    more = "more is needed"
    if finished and total:
        missing = max(1.0, written / finished * (total - finished))
        more = f"about {missing:.0f} MiB more are needed for the rest"
    return (
        f"the disk of {store} is full: {written:.0f} MiB were written for {finished} of "
        f"{total or 'an unknown number of'} examples; {more}; "
        "make room and run this stage again, it goes on where it was"
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:  # another process renamed it meanwhile
        return 0
