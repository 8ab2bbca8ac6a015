"""Shards and their rows: tensors by name, in a file with its hash beside it.

A cache's content depends on this code, so this module's source is part of every cache's key.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from ...cache.shards import map_shard, write_shard
from ...files import file_hash, write_atomic
from ..store.reuse import RowRef

Tensors = dict[str, torch.Tensor]


def store_shard(path: Path, tensors: Tensors):
    """Write a shard, and a file with its SHA-256 beside it."""
    part = path.with_name(f".{path.name}.new")
    write_shard(part, tensors)
    # The hash must be there first: a shard without it counts as unfinished.
    write_atomic(digest_path(path), file_hash(part))
    part.replace(path)


def store_rows(path: Path, rows: dict[int, Tensors]):
    """Write rows, by their index, as a shard."""
    # Reused rows come before new ones in the dict, whatever their index.
    ordered = [rows[i] for i in range(len(rows))]
    store_shard(path, collate(ordered))


def load_rows(refs: dict[int, RowRef]) -> dict[int, Tensors]:
    """Return rows of shards, by the same keys."""
    return {i: load_row(ref) for i, ref in refs.items()}


def load_row(ref: RowRef) -> Tensors:
    path, row = ref
    return {name: tensor[row] for name, tensor in map_shard(path).items()}


def collate(rows: Sequence[Tensors], join: Callable = torch.stack) -> Tensors:
    """Return the tensors of all rows, joined by name."""
    tensors = {}
    for name in rows[0]:
        joined = join([row[name] for row in rows])
        # safetensors takes contiguous tensors alone.
        tensors[name] = joined.contiguous()
    return tensors


def digest_path(path: Path) -> Path:
    return path.with_suffix(".sha256")


def is_stored(path: Path) -> bool:
    """Return whether an earlier try wrote this shard whole. A damaged one is removed."""
    digest = digest_path(path)
    # The hash is compared, because a crash of the machine may have cut a file short.
    exists = path.exists() and digest.exists()
    if exists and file_hash(path) == digest.read_text():
        return True
    path.unlink(missing_ok=True)
    return False
