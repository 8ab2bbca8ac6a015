"""The values that trackers get: lines of metrics.jsonl and usage.jsonl as flat numbers."""

import json
from dataclasses import asdict
from pathlib import Path

from ...cache.format import N_TIMESTEPS
from ...config import Train
from .hardware import MIB

TAIL = 1 << 16  # bytes at the end of usage.jsonl, which hold its last samples


def plain_parameters(config: Train) -> dict[str, bool | int | float | str]:
    """Return the parameters as values that every tracker takes; a list becomes its JSON."""
    values = asdict(config).items()
    return {name: json.dumps(x) if isinstance(x, list) else x for name, x in values}


def flat_values(line: dict) -> dict[str, float]:
    """Return the numbers of a line of metrics.jsonl, the losses of the bands by their timesteps."""
    values = {name: value for name, value in line.items() if isinstance(value, int | float)}
    bands = line.get("loss_by_t", [])
    for index, loss in enumerate(bands):
        # a band without examples has none
        if loss is not None:
            width = N_TIMESTEPS // len(bands)
            values[f"loss_by_t/{index * width}-{(index + 1) * width - 1}"] = loss
    return values


def usage_values(path: Path) -> dict[str, float]:
    """Return the newest sample of usage.jsonl as flat numbers, {} without one."""
    sample = newest_sample(path)
    if not sample:
        return {}
    memory = sum(process["memory_mib"] for process in sample["processes"])
    values = {"usage/cpu_percent": sample["cpu_percent"], "usage/memory_gib": memory * MIB / 2**30}
    for index, gpu in enumerate(sample.get("gpus", [])):
        values |= {f"usage/gpu_{index}/{name}": value for name, value in gpu.items()}
    return values


def newest_sample(path: Path) -> dict | None:
    """Return the newest sample of usage.jsonl; None without one among its last lines."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL))
            lines = file.read().split(b"\n")
    except OSError:
        return None
    for line in reversed(lines):
        # the line that is being written, and the one that the tail begins in, are no JSON
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and "processes" in row:
            return row
    return None
