"""Rows of tensors that are spread over many safetensors files, mapped into memory: nothing is read until it is asked for."""

import json
import os
import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from ..files import fsync, open_to_others

DTYPES = {"F32": torch.float32, "F16": torch.float16, "I64": torch.int64}
"""The types of a cache's tensors, as safetensors names them."""


MAPS = 8192
"""Files of a tensor that are mapped at once: a system allows some ten thousands for a process."""


class ShardError(ValueError):
    """A file that is no whole shard: which."""


def write_shard(path: Path, tensors: dict[str, torch.Tensor]):
    """Write tensors, contiguous and on the CPU, to a file that is there whole or not at all, and on the disk then."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        try:
            save_file(tensors, part)
        except SafetensorError as failure:
            if number := re.search(
                r"os error (\d+)", str(failure)
            ):  # it says so of a full disk, too
                raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None
            raise
        open_to_others(part)
        fsync(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def map_shard(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file, mapped: their pages are read when they are touched, and the system may let them go again.

    torch maps a file without keeping it open, so there may be many thousands. Errors: ShardError.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, size)))
        whole = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
        return {
            name: _view(whole[8 + length :], told)
            for name, told in header.items()
            if name != "__metadata__"
        }
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as failure:
        raise ShardError(f"{path} is missing or damaged") from failure


def _view(data: torch.Tensor, told: dict) -> torch.Tensor:
    start, end = told["data_offsets"]
    return data[start:end].view(DTYPES[told["dtype"]]).view(told["shape"])


class Shards:
    """One tensor of many files as if it were whole. files: in their order; each is mapped when it is first asked for."""

    def __init__(self, files: list[Path], tensor: str):
        self.files, self.tensor = files, tensor
        self._mapped: dict[int, torch.Tensor] = {}

    def of(self, shard: int) -> torch.Tensor:
        """The whole tensor of one file."""
        if shard not in self._mapped:
            if len(self._mapped) == MAPS:
                self._mapped.pop(next(iter(self._mapped)))
            self._mapped[shard] = map_shard(self.files[shard])[self.tensor]
        return self._mapped[shard]

    def take(self, *places: torch.Tensor) -> torch.Tensor:
        """Rows [n, …] of one shape, n > 0. places: int64 [n] each: the file, the row in it, and where in that, if not all."""
        rows = zip(*(each.tolist() for each in places), strict=True)
        return torch.stack([self.of(shard)[tuple(within)] for shard, *within in rows])
