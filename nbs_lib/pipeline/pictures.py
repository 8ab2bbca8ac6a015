"""Pictures of runs, opened as what they are: files that anybody may have changed."""

import struct
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from ..reading import read_whole

if TYPE_CHECKING:
    from PIL import Image

LARGEST, PIXELS = 64 << 20, 1 << 24
"""Bytes and pixels of a picture that is opened."""
SIGNATURE = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
"""What every PNG begins with; its width and height follow. Source: W3C PNG, sections 5.2 and 11.2.1."""


def opened(path: Path) -> "Image.Image | None":
    """Return a PNG as RGB; None where there is none that can be read."""
    from PIL import Image

    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > LARGEST:
            return None
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=["PNG"]) as picture:
            return picture.convert("RGB") if picture.width * picture.height <= PIXELS else None
    except Exception:  # whatever Pillow makes of damaged bytes
        return None


def small_png(path: Path, side: int) -> bytes | None:
    """Return the bytes of a PNG no larger than `side` pixels a side, by its header; None for anything else."""
    try:
        content = b"" if path.is_symlink() else read_whole(path, 16 * side * side)
    except (OSError, ValueError):
        return None
    if len(content) < len(SIGNATURE) + 8 or not content.startswith(SIGNATURE):
        return None
    return content if 0 < max(struct.unpack(">II", content[len(SIGNATURE) :][:8])) <= side else None
