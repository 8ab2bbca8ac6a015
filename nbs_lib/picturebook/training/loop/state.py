"""The state of a training in one safetensors file: weights, their average, the optimizers'."""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import torch
from diffusers.training_utils import EMAModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ....files import open_to_others


def save_state(
    file: Path,
    model: torch.nn.Module,
    average: EMAModel,
    optimizers: Sequence[torch.optim.Optimizer],
    metadata: dict[str, str],
):
    """Write a state, atomically; metadata: texts, among them `key` and `step`."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for i, value in enumerate(average.shadow_params):
        tensors[f"average.{i}"] = value
    for optimizer in optimizers:
        for i, state in optimizer.state_dict()["state"].items():
            prefix = f"{_name(optimizer)}.{i}"
            tensors |= {f"{prefix}.{name}": value for name, value in state.items()}
    # safetensors refuses channels_last and tensors that share memory
    copies = {
        name: value.detach().clone(memory_format=torch.contiguous_format)
        for name, value in tensors.items()
    }
    part = file.with_suffix(".part")
    save_file(copies, part, metadata)
    open_to_others(part)
    part.replace(file)


def load_state(
    file: Path,
    key: str,
    model: torch.nn.Module,
    average: EMAModel,
    optimizers: Sequence[torch.optim.Optimizer],
) -> dict[str, str]:
    """Load a state in place and return its metadata; empty if there is none with this key."""
    if not file.exists():
        return {}
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    if metadata.get("key") != key:
        return {}
    weights = {}
    states: dict[str, dict[int, dict]] = {_name(optimizer): {} for optimizer in optimizers}
    for name, value in load_file(file).items():
        kind, _, rest = name.partition(".")
        if kind == "model":
            weights[rest] = value
        elif kind == "average":
            average.shadow_params[int(rest)].copy_(value)
        else:
            index, _, field = rest.partition(".")
            states[kind].setdefault(int(index), {})[field] = value
    model.load_state_dict(weights)
    for optimizer in optimizers:
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": states[_name(optimizer)], "param_groups": groups})
    average.optimization_step = int(metadata["step"])
    return metadata


def _name(optimizer: torch.optim.Optimizer) -> str:
    return type(optimizer).__name__.lower()


def weights_hash(model: torch.nn.Module) -> str:
    """Return a hash of a network's weights, equal on every machine that has these weights."""
    digest = sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode() + value.float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
