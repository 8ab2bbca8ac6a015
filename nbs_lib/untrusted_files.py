"""Files that someone else may have written, read within bounds: no pipe, no endless file, no nesting without end."""

import json
import os
import stat
from pathlib import Path
from typing import Any

CONTAINERS = (dict, list)
MAX_NESTING = 40
"""Levels of lists and objects in a file of ours, of which the deepest has about ten."""


def read_bounded(path: Path, most: int) -> bytes:
    """Return the bytes of a file. most: bytes that it may have.

    Errors: FileNotFoundError; OSError; ValueError for a larger one, and for what is no plain file: a pipe has no end.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        known = os.fstat(file.fileno())
        if not stat.S_ISREG(known.st_mode):
            raise ValueError(f"{path} is no file")
        content = file.read(most + 1) if known.st_size <= most else b""
    if max(known.st_size, len(content)) > most:
        raise ValueError(f"{path} is larger than {most >> 20} MiB")
    return content


def read_json(path: Path, most: int = 16 << 20) -> Any:
    """Return the value of a JSON file that someone else may have written.

    Errors: as of `read_whole`; ValueError where it is no JSON, or nested deeper than `DEEPEST`.
    """
    try:
        value = json.loads(read_bounded(path, most))
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply") from None
    level = [value] if type(value) in CONTAINERS else []
    for _ in range(MAX_NESTING):
        values = (
            each.values() if type(each) is dict else each for each in level
        )  # JSON has no other types of these
        level = [part for inner in values for part in inner if type(part) in CONTAINERS]
        if not level:
            return value
    raise ValueError(f"{path} is nested too deeply")
