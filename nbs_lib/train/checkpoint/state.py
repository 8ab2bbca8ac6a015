"""What a checkpoint holds of a training, as plain values and tensors, and how it is put back.

shared   equal in every process: the trained weights, the optimizer, the mean of the weights, the scaler of fp16, counters
own      of one process: its random generators, and at ZeRO 1 to 3 its part of the optimizer

DeepSpeed's and accelerate's own checkpoints are pickles, which can run code when they are read. Of DeepSpeed's state, the
objects of its classes stay where they are; only their numbers are kept.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from ..setup import TrainingState
from ..zero import partitioned

COUNTERS = ("global_steps", "global_samples", "skipped_steps")
"""Of DeepSpeed's engine."""
SCALER, SLICES = "loss_scaler", "param_slice_mappings"
"""Objects in the state of a ZeRO optimizer. The second one is for DeepSpeed's tools alone."""


class State:
    """The state of a training in this process."""

    def __init__(self, parts: TrainingState, accelerator):
        self.parts, self.device = parts, accelerator.device
        engine = parts.engine
        self.counted = hasattr(engine, COUNTERS[0])
        # accelerate and DeepSpeed wrap the optimizer; at ZeRO 1 to 3 DeepSpeed's own is in its place
        self.optimizer = engine.optimizer if self.counted else parts.optimizer.optimizer
        self.zero = hasattr(self.optimizer, SCALER)
        self.scaler = getattr(engine, "torch_autocast_z0_gradscaler", None) or accelerator.scaler

    def shared(self) -> dict[str, Any]:
        """Return what is equal in every process."""
        return {
            "weights": self._weights(),
            "optimizer": None if self.zero else self.optimizer.state_dict(),
            "mean": self.parts.ema.state_dict() if self.parts.ema else None,
            "scaler": self.scaler.state_dict() if self.scaler else None,
            "counters": {name: getattr(self.parts.engine, name) for name in COUNTERS}
            if self.counted
            else {},
        }

    def own(self) -> dict[str, Any]:
        """Return what this process alone has. Every process must call this."""
        with _at_rest(self.optimizer):
            return {
                "random": _generators(self.device),
                "optimizer": self._part() if self.zero else None,
            }

    def restore(self, shared: dict[str, Any], own: dict[str, Any]):
        """Put back what `shared` and `own` returned. Every process must call this. Errors: whatever a state raises that does
        not fit; this one is then neither the old nor the new."""
        with torch.no_grad():
            for parameter, saved in zip(self._weights(), shared["weights"], strict=True):
                if parameter.shape != saved.shape:
                    raise ValueError(
                        f"a weight of shape {list(saved.shape)} where {list(parameter.shape)} is trained"
                    )
                parameter.copy_(saved)
        if self.zero:
            self._restore_part(own["optimizer"])
        else:
            self.optimizer.load_state_dict(shared["optimizer"])
        if self.parts.ema:
            self.parts.ema.load_state_dict(shared["mean"])
            self.parts.ema.to(self.device)
        if self.scaler:
            self.scaler.load_state_dict(shared["scaler"])
        if self.counted:
            for name in COUNTERS:
                setattr(self.parts.engine, name, shared["counters"][name])
        _restore_generators(own["random"], self.device)

    def _weights(self) -> list[torch.nn.Parameter]:
        """The trained weights; at ZeRO 3 none, because they are in the parts of the optimizer."""
        return [] if partitioned(self.parts.parameters) else list(self.parts.parameters)

    def _part(self) -> dict[str, Any]:
        state = self.optimizer.state_dict()
        numbers = {
            name: value
            for name, value in vars(state[SCALER]).items()
            if isinstance(value, (bool, int, float))
        }
        return {name: value for name, value in state.items() if name != SLICES} | {SCALER: numbers}

    def _restore_part(self, saved: dict[str, Any]):
        scaler = self.optimizer.loss_scaler
        known = {name: value for name, value in saved[SCALER].items() if name in vars(scaler)}
        vars(scaler).update(known)
        with _at_rest(self.optimizer):
            states = [None] * torch.distributed.get_world_size()
            states[torch.distributed.get_rank()] = saved | {SCALER: scaler}
            self.optimizer.load_state_dict(states, load_from_fp32_weights=True)


@contextmanager
def _at_rest(optimizer: Any) -> Iterator[None]:
    """Have the optimizer of ZeRO 3 bring its parts together for a while, as DeepSpeed does around a checkpoint of its own."""
    if hasattr(optimizer, "checkpoint_event_prologue"):
        optimizer.checkpoint_event_prologue()
    yield
    if hasattr(optimizer, "checkpoint_event_epilogue"):
        optimizer.checkpoint_event_epilogue()


def _generators(device: torch.device) -> dict[str, Any]:
    """The states of this process' random generators."""
    kind, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "gpu": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "python": random.getstate(),
        "numpy": (kind, keys.tolist(), *rest),
    }


def _restore_generators(states: dict[str, Any], device: torch.device):
    torch.set_rng_state(states["torch"])
    if (
        device.type == "cuda" and states["gpu"] is not None
    ):  # None where it was trained on a CPU before
        torch.cuda.set_rng_state(states["gpu"], device)
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
