"""What a disk has left, and what to say where it took no more."""

import errno
import os
from pathlib import Path


def free_space(path: Path) -> str:
    """Return what is free on the disk of a path: its MiB, or that it takes no more files, whatever bytes are free."""
    place = next(each for each in (path, *path.absolute().parents) if each.exists())
    told = os.statvfs(place)
    if told.f_files and not told.f_favail:
        return "no inode is free, so there can be no more files"
    return f"{told.f_bavail * told.f_frsize / 2**20:.0f} MiB are free"


def explain_shortage(said: object, path: Path) -> str:
    """Return what to add where a disk is called full that has space, but takes no more files; else "".

    said: a failure or its words; path: on the disk that it is of.
    """
    if os.strerror(errno.ENOSPC) in str(said) and "inode" in (free := free_space(path)):
        return f": {free}; remove files that are not needed"
    return ""
