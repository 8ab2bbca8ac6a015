"""Rows of tensors in many safetensors files, mapped into memory: a row is read on first use."""

import json
import os
import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from ..files import fsync, open_to_others

# The types of a cache's tensors, by their names in safetensors.
SHARD_DTYPES = {"F32": torch.float32, "F16": torch.float16, "I64": torch.int64}
# Files of a tensor that are mapped at once; a system allows some ten thousands in a process.
MAX_MAPPED = 8192


class ShardError(ValueError):
    """A file that is missing, incomplete or damaged: which."""


def write_shard(path: Path, tensors: dict[str, torch.Tensor]):
    """Write a safetensors file atomically and wait until it is on the disk.

    tensors: contiguous, on the CPU
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        _save(tensors, part, path)
        # caches are shared by users and containers
        open_to_others(part)
        # a shard's name promises its content, so the content must be on the disk first
        fsync(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _save(tensors: dict[str, torch.Tensor], part: Path, path: Path):
    try:
        save_file(tensors, part)
    except SafetensorError as failure:
        # safetensors reports a full disk as an error of its own, with the system's number in it
        number = re.search(r"os error (\d+)", str(failure))
        if number:
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None
        raise


def map_shard(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a file, mapped: pages are read on use and may be dropped again.

    Errors: ShardError
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            # safetensors: eight bytes of length, a JSON header, the tensors
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, size)))
        # torch maps a file without keeping it open, so there may be many thousands
        content = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
        header.pop("__metadata__", None)
        data = content[8 + length :]
        return {name: _view(data, entry) for name, entry in header.items()}
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError) as failure:
        raise ShardError(f"{path} is missing or damaged") from failure


def _view(data: torch.Tensor, entry: dict) -> torch.Tensor:
    start, end = entry["data_offsets"]
    return data[start:end].view(SHARD_DTYPES[entry["dtype"]]).view(entry["shape"])


class Shards:
    """One tensor that is spread over many files."""

    def __init__(self, files: list[Path], name: str):
        """files: in the order of their numbers, mapped on first use. name: of the tensor."""
        self.files = files
        self.name = name
        self._mapped: dict[int, torch.Tensor] = {}

    def tensor_in(self, shard: int) -> torch.Tensor:
        """Return the tensor of one file."""
        if shard not in self._mapped:
            if len(self._mapped) == MAX_MAPPED:
                # a dict keeps the order of insertion
                oldest = next(iter(self._mapped))
                self._mapped.pop(oldest)
            self._mapped[shard] = map_shard(self.files[shard])[self.name]
        return self._mapped[shard]

    def take(self, shard: torch.Tensor, *indices: torch.Tensor) -> torch.Tensor:
        """Return n > 0 rows of one shape, [n, …].

        shard: file of each row, int64 [n]
        indices: the row in the file, and optionally an index inside the row; int64 [n] each
        """
        positions = zip(*(index.tolist() for index in indices), strict=True)
        pairs = zip(shard.tolist(), positions, strict=True)
        return torch.stack([self.tensor_in(number)[position] for number, position in pairs])
