"""The files that a source may read: regular files inside its own folder.

A pipe or a device would be read for ever, and a link may lead to a file that is nobody's business.
"""

import os
import stat
from pathlib import Path
from typing import BinaryIO

NOT_A_FILE, LEADS_OUT, LEADS_NOWHERE = (
    "not a file",
    "link that leads out of the folder",
    "link that leads nowhere",
)
NO_ACCESS = "file cannot be read"


class EnclosureError(ValueError):
    """A file that is not read. Its text is a short reason, the same for every file with that fault."""


def open_regular(path: str | Path) -> BinaryIO:
    """Open a regular file for reading. Errors: OSError, also for a pipe, a socket, a device or a folder."""
    descriptor = os.open(
        path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    )  # without O_NONBLOCK, a pipe waits for its writer
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{NOT_A_FILE}: {str(path)!r}")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


class Enclosure:
    """A folder that nothing may lead out of.

    folder: may itself be reached by a link. The links of a hub's download lead to its blobs, which are allowed, too.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.roots = [folder.resolve()]
        if (
            self.roots[0].parent.name == "snapshots"
        ):  # huggingface_hub's layout: snapshots/REVISION, and blobs beside
            self.roots.append(self.roots[0].parent.parent / "blobs")
        self._linked: dict[str, bool] = {}  # of a folder whether a link leads to it

    def check(self, path: Path):
        """Check that `path`, of the folder, leads to a regular file inside it. Errors: EnclosureError."""
        self.check_inside(path)
        try:
            regular = stat.S_ISREG(os.stat(path).st_mode)
        except (OSError, ValueError):
            raise EnclosureError(NO_ACCESS) from None
        if not regular:
            raise EnclosureError(NOT_A_FILE)

    def check_inside(self, path: Path):
        """Check the same of a file of any kind, or of a folder. Errors: EnclosureError."""
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
        """Return whether a link or `..` may be part of the path: resolving each of a million would take long."""
        parent = os.path.dirname(path)
        if parent not in self._linked:
            within = os.path.relpath(parent, self.folder)
            plain = os.path.normpath(os.path.join(self.roots[0], within))
            self._linked[parent] = (
                within.split(os.sep)[0] == os.pardir or os.path.realpath(parent) != plain
            )
        return self._linked[parent] or os.path.basename(path) == os.pardir or os.path.islink(path)
