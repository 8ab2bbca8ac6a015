"""The files that a source may read: regular files inside its own folder.

Reading a pipe or a device would never end, and a link may lead to a file outside the data set.
"""

import os
import stat
from pathlib import Path
from typing import BinaryIO

NOT_A_FILE = "not a file"
LEADS_OUT = "link that leads out of the folder"
LEADS_NOWHERE = "link that leads nowhere"
NO_ACCESS = "file cannot be read"


class EnclosureError(ValueError):
    """A file that is not read. Its text is a short reason, equal for equal faults."""


def open_regular(path: str | Path) -> BinaryIO:
    """Open a regular file for reading. Errors: OSError, also for anything else than a file."""
    # Without O_NONBLOCK, opening a pipe waits for its writer.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags)
    try:
        # The open file is checked, not its path: the path may lead elsewhere a moment later.
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{NOT_A_FILE}: {str(path)!r}")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


class Enclosure:
    """A folder that no link or name may lead out of.

    folder: may itself be reached through a link. The links of a download from the hub lead to its
        blobs, which are allowed, too.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        root = folder.resolve()
        self.roots = [root]
        # huggingface_hub's layout is snapshots/REVISION, with the blobs beside snapshots.
        if root.parent.name == "snapshots":
            self.roots.append(root.parent.parent / "blobs")
        self._linked_folders: dict[str, bool] = {}

    def check(self, path: Path):
        """Check that `path` leads to a regular file inside the folder. Errors: EnclosureError."""
        self.check_inside(path)
        try:
            regular = stat.S_ISREG(os.stat(path).st_mode)
        except (OSError, ValueError):
            raise EnclosureError(NO_ACCESS) from None
        if not regular:
            raise EnclosureError(NOT_A_FILE)

    def check_inside(self, path: Path):
        """Check that `path`, of any kind, stays inside the folder. Errors: EnclosureError."""
        if not self._has_link(path):
            return
        try:
            target = path.resolve(strict=True)
        except (OSError, RuntimeError, ValueError):
            raise EnclosureError(LEADS_NOWHERE) from None
        if not any(target.is_relative_to(root) for root in self.roots):
            raise EnclosureError(LEADS_OUT)

    def open(self, path: Path) -> BinaryIO:
        """Open a file of the folder. Errors: EnclosureError, also for one that cannot be read."""
        self.check(path)
        try:
            return open_regular(path)
        except OSError:
            raise EnclosureError(NO_ACCESS) from None

    def _has_link(self, path: Path) -> bool:
        """Return whether a link or `..` may be part of the path."""
        parent = os.path.dirname(path)
        # Resolving each of a million files takes long, so each folder is resolved once.
        if parent not in self._linked_folders:
            relative = os.path.relpath(parent, self.folder)
            joined = os.path.join(self.roots[0], relative)
            plain = os.path.normpath(joined)
            leaves = relative.split(os.sep)[0] == os.pardir
            linked = leaves or os.path.realpath(parent) != plain
            self._linked_folders[parent] = linked
        # The last part may be a link in a folder without any.
        if self._linked_folders[parent]:
            return True
        if os.path.basename(path) == os.pardir:
            return True
        return os.path.islink(path)
