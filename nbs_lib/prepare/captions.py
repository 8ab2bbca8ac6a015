"""Captions as text: cleaned, or refused with a reason."""

import re
from collections.abc import Iterator
from typing import BinaryIO

LONGEST = 1 << 20  # bytes of a caption's file
TEXT_COLUMNS = ("text", "caption", "prompt")
# Usual names of a table's columns, the likeliest first.
IMAGE_COLUMNS = ("file_name", "image", "image_path", "path", "filename")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class CaptionError(ValueError):
    """A caption that cannot be used. Its text is a short reason, equal for equal faults."""


def decode_caption(text: str) -> str:
    """Return text that every file can hold: halves of surrogate pairs become `?`.

    Such halves also stand for the undecodable bytes of a file name.
    """
    return text.encode("utf-8", "replace").decode()


def clean_caption(content: str | bytes) -> str:
    """Return a caption as one line, "" if it has no words. Errors: CaptionError."""
    if len(content) > LONGEST:
        raise CaptionError("caption is longer than 1 MiB")
    try:
        # Editors on Windows begin a file with a byte order mark; "utf-8-sig" drops it.
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
    except UnicodeDecodeError:
        raise CaptionError("caption is not UTF-8 text") from None
    # Control characters and line breaks would break tables and terminals.
    return " ".join(CONTROL.sub(" ", decode_caption(text)).split())


def read_lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a file, too long ones cut to LONGEST + 1 bytes."""
    while line := file.readline(LONGEST + 1):
        rest = line
        # A file without a line break would otherwise fill the memory.
        while len(rest) > LONGEST and not rest.endswith(b"\n"):
            rest = file.readline(LONGEST + 1)
        yield line


def caption_from_name(name: str) -> str:
    """Return a file's name as a caption: `a_cat_on_a_mat.png` is "a cat on a mat"."""
    base_name = name.rsplit("/", 1)[-1]
    stem = base_name.rsplit(".", 1)[0]
    return clean_caption(stem.replace("_", " "))


def find_column(columns: list[str], requested: str, usual: tuple[str, ...]) -> str | None:
    """Return the requested column, or the likeliest one if none is requested; None without one."""
    if requested:
        return requested if requested in columns else None
    return next((name for name in usual if name in columns), None)
