"""Bounded reads of files that someone else may have written.

A pipe, an endless file or endless nesting must not stop a command.
"""

import json
import os
import stat
from pathlib import Path
from typing import Any

CONTAINERS = (dict, list)
MAX_NESTING = 40  # levels of lists and objects; our own deepest file has about ten


def read_bounded(path: Path, max_size: int) -> bytes:
    """Return the bytes of a plain file.

    max_size: bytes that the file may have

    Errors: FileNotFoundError; OSError; ValueError for a larger file, a pipe or a device
    """
    # O_NONBLOCK, because opening a pipe would wait for a writer
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{path} is no file")
        # one byte more than allowed, because a file may grow while it is read
        content = file.read(max_size + 1) if status.st_size <= max_size else b""
    if max(status.st_size, len(content)) > max_size:
        raise ValueError(f"{path} is larger than {max_size >> 20} MiB")
    return content


def read_text(path: Path, max_size: int = 16 << 20) -> str:
    """Return the text of a file in UTF-8, without a byte order mark.

    max_size: bytes that the file may have

    Errors: as `read_bounded`; ValueError for bytes that are no text
    """
    try:
        # editors on Windows begin a file with a byte order mark
        text = read_bounded(path, max_size).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no UTF-8 text") from None
    # zeros are valid UTF-8, and no text has them
    if "\0" in text:
        raise ValueError(f"{path} is no UTF-8 text")
    return text


def read_json(path: Path, max_size: int = 16 << 20) -> Any:
    """Return the value in a JSON file.

    max_size: bytes that the file may have

    Errors: as `read_bounded`; ValueError if it is no JSON or nested deeper than `MAX_NESTING`
    """
    try:
        value = json.loads(read_bounded(path, max_size))
    # Python's parser is recursive
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply") from None
    # level by level, not by recursion, which the depth itself could exhaust
    level = [value] if type(value) in CONTAINERS else []
    for _ in range(MAX_NESTING):
        level = [child for container in level for child in _containers_in(container)]
        if not level:
            return value
    raise ValueError(f"{path} is nested too deeply")


def _containers_in(container: dict | list) -> list[dict | list]:
    values = container.values() if type(container) is dict else container
    return [value for value in values if type(value) in CONTAINERS]
