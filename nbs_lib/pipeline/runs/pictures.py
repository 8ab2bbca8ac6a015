"""Pictures of runs, opened as what they are: files that anybody may have changed."""

import os
import stat
import struct
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

LARGEST, PIXELS = 64 << 20, 1 << 24
"""Bytes and pixels of a picture that is opened."""
SIGNATURE = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
"""What every PNG begins with; its width and height follow. Source: W3C PNG, sections 5.2 and 11.2.1."""


def open_picture(path: Path) -> "Image.Image | None":
    """Return a PNG as RGB; None where there is none that can be read."""
    from PIL import Image

    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > LARGEST:
            return None
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=["PNG"]) as picture:
            return picture.convert("RGB") if picture.width * picture.height <= PIXELS else None
    except Exception:  # whatever Pillow makes of damaged bytes
        return None


def is_small_png(path: Path, side: int) -> bool:
    """Whether a file is a PNG no larger than `side` pixels a side, by its header, and no link."""
    try:
        with os.fdopen(
            os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW),
            "rb",
            buffering=0,
        ) as file:
            known = os.fstat(file.fileno())
            small = stat.S_ISREG(known.st_mode) and known.st_size <= 16 * side * side
            head = file.read(len(SIGNATURE) + 8) if small else b""
    except OSError:
        return False
    if len(head) < len(SIGNATURE) + 8 or not head.startswith(SIGNATURE):
        return False
    return 0 < max(struct.unpack(">II", head[len(SIGNATURE) :])) <= side
