"""Pictures of runs, opened as files that anybody may have changed."""

import os
import stat
import struct
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

# bytes of a picture that is opened
MAX_SIZE = 64 << 20
MAX_PIXELS = 1 << 24
# the beginning of every PNG, before width and height. Source: W3C PNG, sections 5.2 and 11.2.1
SIGNATURE = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
# a pipe must not block, and a link may lead to a file of somebody else
OPEN_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW


def open_picture(path: Path) -> "Image.Image | None":
    """Return a PNG as RGB, None if it cannot be read."""
    from PIL import Image

    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > MAX_SIZE:
            return None
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=["PNG"]) as picture:
            # the header is read, the pixels not yet: a small file may hold billions of them
            small = picture.width * picture.height <= MAX_PIXELS
            return picture.convert("RGB") if small else None
    except Exception:
        # Pillow raises nearly anything for damaged bytes
        return None


def is_small_png(path: Path, side: int) -> bool:
    """Return True for a PNG of at most `side` pixels a side, judged by its header; no link."""
    try:
        with os.fdopen(os.open(path, OPEN_FLAGS), "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > 16 * side * side:
                return False
            head = file.read(len(SIGNATURE) + 8)
    except OSError:
        return False
    if len(head) < len(SIGNATURE) + 8 or not head.startswith(SIGNATURE):
        return False
    return 0 < max(struct.unpack(">II", head[len(SIGNATURE) :])) <= side
