"""Captions as text: cleaned, or refused with a reason."""

import re
from collections.abc import Iterator
from typing import BinaryIO

LONGEST = 1 << 20  # bytes of a caption's file
TEXT_COLUMNS = ("text", "caption", "prompt")
IMAGE_COLUMNS = ("file_name", "image", "image_path", "path", "filename")
"""Names that people give the columns of a table, the likeliest first."""
CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class CaptionError(ValueError):
    """A caption that cannot be used. Its text is a short reason, the same for every caption with that fault."""


def decode_caption(text: str) -> str:
    """Text that every file can hold: undecodable bytes of a file name and halves of surrogate pairs become `?`."""
    return text.encode("utf-8", "replace").decode()


def clean_caption(content: str | bytes) -> str:
    """A caption as one line, "" for one without words. Errors: CaptionError."""
    if len(content) > LONGEST:
        raise CaptionError("caption is longer than 1 MiB")
    try:
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
    except UnicodeDecodeError:
        raise CaptionError("caption is not UTF-8 text") from None
    return " ".join(CONTROL.sub(" ", decode_caption(text)).split())


def lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file, none of them read further than a caption may be long; such a one is longer by a byte."""
    while line := file.readline(LONGEST + 1):
        rest = line
        while len(rest) > LONGEST and not rest.endswith(b"\n"):
            rest = file.readline(LONGEST + 1)
        yield line


def from_name(name: str) -> str:
    """The caption that a file's name is: `a_cat_on_a_mat.png` says "a cat on a mat"."""
    stem = name.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    return clean_caption(stem.replace("_", " "))


def column(known: list[str], asked: str, usual: tuple[str, ...]) -> str | None:
    """The column of a table that was asked for, or the likeliest one; None where there is none."""
    if asked:
        return asked if asked in known else None
    return next((name for name in usual if name in known), None)
