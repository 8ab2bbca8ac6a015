"""Free space of a disk, and an explanation for errors of a disk that has bytes but no inodes."""

import errno
import os
from pathlib import Path


def free_space(path: Path) -> str:
    """Return the free MiB of a path's disk as a phrase, or that no inode is free.

    path: need not exist yet
    """
    existing = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    status = os.statvfs(existing)
    # without inodes the system also reports a full disk, however many bytes are free
    if status.f_files and not status.f_favail:
        return "no inode is free, so there can be no more files"
    # available to users: a file system reserves some for root
    return f"{status.f_bavail * status.f_frsize / 2**20:.0f} MiB are free"


def explain_shortage(error: object, path: Path) -> str:
    """Return an addition to the error of a full disk that lacks inodes, not bytes; otherwise "".

    error: the exception or its message
    path: a file or folder on that disk
    """
    if os.strerror(errno.ENOSPC) not in str(error):
        return ""
    space = free_space(path)
    return f": {space}; remove files that are not needed" if "inode" in space else ""
