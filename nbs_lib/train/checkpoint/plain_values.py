"""Plain values and tensors in one safetensors file, hashed as it is written and again before it is read.

Values are dicts, lists, tuples, numbers, text, None and tensors. The tensors are those of the file, by their number; all else
is JSON in its metadata, the key `value`, where whatever JSON does not know says what it is:

    {"dict": [[key, value], ...]}   {"list": [...]}   {"tuple": [...]}   {"tensor": "0"}

Nothing that is read is ever executed. Source of the format: https://github.com/huggingface/safetensors#format
"""

import json
import os
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from ...files import file_hash

KEY = "value"
PLAIN = (bool, int, float, str)
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

    Tensors are copied to the CPU one at a time, so a large state needs no second place in memory.
    Errors: TypeError for a value that is not plain; OSError of the disk.
    """
    digest = sha256()
    with path.open("wb") as file:
        for part in _parts(value):
            file.write(part)
            digest.update(part)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def read(path: Path, digest: str) -> Any:
    """Read a value, its tensors on the CPU. Errors: ValueError for a file of another SHA-256 than `digest`, and whatever else
    a file raises that `write` did not write."""
    if path.is_symlink() or not path.is_file():
        raise ValueError(f"{path.name} is no file of its own")
    if file_hash(path) != digest:
        raise ValueError(f"{path.name} does not have the hash it was written with")
    with safe_open(path, "pt") as file:
        # a clone, because the file's own tensors are its mapped pages
        return _decode(json.loads(file.metadata()[KEY]), lambda name: file.get_tensor(name).clone())


def _parts(value: Any) -> Iterator[bytes | memoryview]:
    """The bytes of a file: the length of its header, the header, and each tensor's data."""
    tensors: dict[str, torch.Tensor] = {}
    header: dict[str, Any] = {"__metadata__": {KEY: json.dumps(_encode(value, tensors))}}
    # wide numbers first, so that all of them are aligned
    order = sorted(tensors, key=lambda name: -tensors[name].element_size())
    end = 0
    for name in order:
        tensor, begin = tensors[name], end
        end += tensor.nbytes
        header[name] = {
            "dtype": DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    yield len(head).to_bytes(8, "little")
    yield head
    for name in order:
        yield memoryview(tensors[name].cpu().contiguous().reshape(-1).view(torch.uint8).numpy())


def _encode(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach()
        return {"tensor": name}
    if isinstance(value, dict):
        return {
            "dict": [[_encode(key, tensors), _encode(each, tensors)] for key, each in value.items()]
        }
    if isinstance(value, (list, tuple)):
        return {
            "list" if isinstance(value, list) else "tuple": [
                _encode(each, tensors) for each in value
            ]
        }
    if value is None or isinstance(value, PLAIN):
        return value
    raise TypeError(
        f"{type(value).__module__}.{type(value).__qualname__} is no plain value and cannot be kept"
    )


def _decode(value: Any, tensor: Callable[[str], torch.Tensor]) -> Any:
    if value is None or isinstance(value, PLAIN):
        return value
    [(kind, inside)] = value.items()
    if kind == "tensor":
        return tensor(inside)
    if kind == "dict":
        return {key: _decode(each, tensor) for key, each in inside}
    return {"list": list, "tuple": tuple}[kind](_decode(each, tensor) for each in inside)
