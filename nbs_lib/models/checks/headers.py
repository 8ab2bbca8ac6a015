"""Files of settings and headers of weights, read without trust and without a tensor in memory."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open

# Bytes. Real ones reach 4 MiB (a vocabulary) and 0.3 MiB (the header of an SDXL UNet).
SETTINGS_SIZE = 64 << 20
HEADER_SIZE = 16 << 20
FLOATS = ("F64", "F32", "F16", "BF16")  # types of weights, as safetensors names them
Weights = dict[str, tuple[tuple[int, ...], str]]  # shape and type of each weight by name


class FileError(ValueError):
    """A file whose content is not what its name says; the message is a part of a sentence."""


class Header(NamedTuple):
    """The header of a safetensors file.

    metadata: the texts beside the weights
    """

    weights: Weights
    metadata: dict[str, str]


def read_header(path: Path) -> Header:
    """Return the header of a safetensors file. Errors: FileError."""
    check_file(path)
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
        # checked first, because safetensors reads a header of any size into memory
        if size > HEADER_SIZE:
            raise FileError(f"{path.name} has a header of {size} bytes, allowed are {HEADER_SIZE}")
        with safe_open(path, "pt") as opened:
            # a slice has shape and type without reading the tensor
            slices = {name: opened.get_slice(name) for name in opened.keys()}
            metadata = opened.metadata() or {}
            weights = {
                name: (tuple(entry.get_shape()), entry.get_dtype())
                for name, entry in slices.items()
            }
        return Header(weights, metadata)
    except (SafetensorError, OSError, OverflowError) as failure:
        raise FileError(f"{path.name} is damaged: {first_line(failure)}") from None


def read_settings(path: Path, infinite: bool = False) -> dict[str, Any]:
    """Return the JSON object in a file. infinite: see `parse_settings`. Errors: FileError."""
    check_file(path, SETTINGS_SIZE)
    try:
        return parse_settings(path.read_bytes(), path.name, infinite)
    except OSError as failure:
        raise FileError(f"{path.name} cannot be read: {failure.strerror}") from None


def parse_settings(text: str | bytes, name: str, infinite: bool = False) -> dict[str, Any]:
    """Return the object in a JSON text without NaN, infinity or half a character.

    name: of the text, for errors
    infinite: True to allow infinite numbers, as diffusers writes a scheduler's without a limit

    Errors: FileError
    """
    try:
        value = json.loads(text, parse_constant=_infinity if infinite else _reject_constant)
        # a lone surrogate and 1e999 pass the parser, but nobody else could read what is written
        json.dumps(value, ensure_ascii=False, allow_nan=infinite).encode()
    except (ValueError, RecursionError) as failure:
        raise FileError(f"{name} is damaged: {first_line(failure)}") from None
    if not isinstance(value, dict):
        raise FileError(f"{name} is damaged: it holds no JSON object")
    return value


def _reject_constant(name: str):
    raise ValueError(f"{name} is no number")


def _infinity(name: str) -> float:
    if name == "NaN":
        _reject_constant(name)
    return float(name)


def check_file(path: Path, max_size: int | None = None):
    """Check that a path is a plain file of at most `max_size` bytes. Errors: FileError."""
    try:
        # reading a pipe would wait without end
        if not path.is_file():
            raise FileError(f"{path.name} is no plain file")
        size = path.stat().st_size
        if max_size is not None and size > max_size:
            raise FileError(f"{path.name} has {size} bytes, allowed are {max_size}")
    except OSError as failure:
        raise FileError(f"{path.name} cannot be read: {failure.strerror}") from None


def first_line(failure: BaseException, max_length: int = 300) -> str:
    """Return the first line of an error's text, or the name of its class without a text."""
    # libraries' errors often run over many lines
    lines = str(failure).strip().splitlines()
    line = lines[0] if lines else type(failure).__name__
    return line if len(line) <= max_length else f"{line[:max_length]}…"
