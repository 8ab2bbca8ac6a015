"""Plain values and tensors in one safetensors file, hashed when written and again before read.

Values are dicts, lists, tuples, numbers, text, None and tensors. Tensors are those of the file, by
number; all else is JSON in its metadata, under the key `value`, with these forms for what JSON does
not know:

    {"dict": [[key, value], ...]}   {"list": [...]}   {"tuple": [...]}   {"tensor": "0"}

Nothing that is read is ever executed.
Source of the format: https://github.com/huggingface/safetensors#format
"""

import json
import os
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from ...files import file_hash

KEY = "value"
ALIGNMENT = 8  # bytes
SCALARS = (bool, int, float, str, type(None))
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write(path: Path, value: Any) -> str:
    """Write a value and wait until it is on the disk; return the SHA-256 of the file.

    Errors: TypeError for a value that is not plain; OSError of the disk.
    """
    digest = sha256()
    with path.open("wb") as file:
        for part in _file_parts(value):
            file.write(part)
            digest.update(part)
        # a checkpoint is renamed next: without this, a power loss could leave an empty file
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def read(path: Path, digest: str) -> Any:
    """Return the value of a file, with its tensors on the CPU.

    Errors: ValueError if the file's SHA-256 is not `digest`; any, for a file of another writer.
    """
    check_hash(path, digest)
    with safe_open(path, "pt") as file:
        # a clone, because the file's own tensors are its mapped pages
        return _decode(json.loads(file.metadata()[KEY]), lambda name: file.get_tensor(name).clone())


def check_hash(path: Path, digest: str):
    """Check that a file's SHA-256 is `digest`. Errors: ValueError."""
    # a link could lead to a file that changes after it was hashed
    if path.is_symlink() or not path.is_file():
        raise ValueError(f"{path.name} is a link or no file")
    if file_hash(path) != digest:
        raise ValueError(f"{path.name} does not have the hash it was written with")


def _file_parts(value: Any) -> Iterator[bytes | memoryview]:
    """Yield the bytes of a file: the length of its header, the header, each tensor's data."""
    tensors: dict[str, Tensor] = {}
    header: dict = {"__metadata__": {KEY: json.dumps(_encode(value, tensors))}}
    # wide numbers first, so that all of them are aligned
    order = sorted(tensors, key=lambda name: -tensors[name].element_size())
    end = 0
    for name in order:
        tensor = tensors[name]
        offsets = [end, end + tensor.nbytes]
        dtype = DTYPES[tensor.dtype]
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": offsets}
        end += tensor.nbytes
    content = json.dumps(header).encode()
    content += b" " * (-len(content) % ALIGNMENT)
    yield len(content).to_bytes(8, "little")
    yield content
    # copied to the CPU one at a time, so a large state needs no second place in memory
    for name in order:
        yield memoryview(tensors[name].cpu().contiguous().reshape(-1).view(torch.uint8).numpy())


def _encode(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Return a value as JSON; its tensors are added to `tensors`."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        # not copied yet: that happens when it is written
        tensors[name] = value.detach()
        return {"tensor": name}
    # as pairs, because JSON's own keys are text only
    if isinstance(value, dict):
        items = value.items()
        return {"dict": [[_encode(key, tensors), _encode(item, tensors)] for key, item in items]}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_encode(item, tensors) for item in value]}
    if isinstance(value, SCALARS):
        return value
    kind = type(value)
    raise TypeError(f"{kind.__module__}.{kind.__qualname__} is no plain value and cannot be stored")


def _decode(value: Any, tensor: Callable[[str], Tensor]) -> Any:
    """Return the value of such JSON. tensor: returns a tensor of the file by its name."""
    if isinstance(value, SCALARS):
        return value
    [(kind, content)] = value.items()
    if kind == "tensor":
        return tensor(content)
    if kind == "dict":
        return {key: _decode(item, tensor) for key, item in content}
    return {"list": list, "tuple": tuple}[kind](_decode(item, tensor) for item in content)
