"""Files of settings and headers of weights, read without trust: plain files of a sane size, and no tensor in memory."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open

SETTINGS_SIZE, HEADER_SIZE = 64 << 20, 16 << 20
"""Bytes that a file of settings and a header may have. Real ones: 4 MiB (a vocabulary), 0.3 MiB (an SDXL UNet)."""
FLOATS = ("F64", "F32", "F16", "BF16")
"""The types, as safetensors names them, that weights may have."""


class FileError(ValueError):
    """A file that is not what its name says; the message is a part of a sentence."""


class Header(NamedTuple):
    """weights: by name, the shape and the type of each. metadata: the texts beside them."""

    weights: dict[str, tuple[tuple[int, ...], str]]
    metadata: dict[str, str]


def read_header(path: Path) -> Header:
    """Return the header of a safetensors file. Errors: FileError."""
    check_file(path)
    try:
        with path.open("rb") as file:
            if (size := int.from_bytes(file.read(8), "little")) > HEADER_SIZE:
                raise FileError(
                    f"{path.name} has a header of {size} bytes, allowed are {HEADER_SIZE}"
                )
        with safe_open(path, "pt") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}
            weights = {
                name: (tuple(each.get_shape()), each.get_dtype()) for name, each in slices.items()
            }
            return Header(weights, opened.metadata() or {})
    except (SafetensorError, OSError, OverflowError) as failure:
        raise FileError(f"{path.name} is damaged: {first_line(failure)}") from None


def read_settings(path: Path) -> dict[str, Any]:
    """Return the JSON object of a file. Errors: FileError."""
    check_file(path, SETTINGS_SIZE)
    try:
        return parse_settings(path.read_bytes(), path.name)
    except OSError as failure:
        raise FileError(f"{path.name} cannot be read: {failure.strerror}") from None


def parse_settings(text: str | bytes, name: str) -> dict[str, Any]:
    """Return the object that a JSON text holds, which may hold no NaN, no infinity and no half of a character.

    name: of the text, for errors. Errors: FileError.
    """
    try:
        # every number and string once as others write it: a lone surrogate and 1e999 pass the parser
        value = json.loads(text, parse_constant=_refuse_constant)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as failure:
        raise FileError(f"{name} is damaged: {first_line(failure)}") from None
    if not isinstance(value, dict):
        raise FileError(f"{name} is damaged: it holds no JSON object")
    return value


def check_file(path: Path, most: int | None = None):
    """Check that a path is a plain file, of at most `most` bytes: a pipe would be waited for without end. Errors: FileError."""
    try:
        if not path.is_file():
            raise FileError(f"{path.name} is no plain file")
        if most is not None and (size := path.stat().st_size) > most:
            raise FileError(f"{path.name} has {size} bytes, allowed are {most}")
    except OSError as failure:
        raise FileError(f"{path.name} cannot be read: {failure.strerror}") from None


def first_line(failure: BaseException, most: int = 300) -> str:
    """Return the first line of an error's text, or the name of its kind if it has none."""
    lines = str(failure).strip().splitlines()
    line = lines[0] if lines else type(failure).__name__
    return line if len(line) <= most else f"{line[:most]}…"


def _refuse_constant(name: str):
    raise ValueError(f"{name} is no number")
