"""The state of a training that a checkpoint holds, as plain values and tensors.

shared    equal in every process: the trained weights, the optimizer, the moving average of the
          weights, an engine's scaler of fp16, counters, the best held-out loss
process   of one process: its random generators, the loss scale of its passes in fp16, and at ZeRO
          1 to 3 its part of the optimizer

DeepSpeed's and accelerate's own checkpoints are pickles, which can run code when they are read. The
objects of DeepSpeed's classes stay as they are; only their numbers are stored and restored.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import distributed
from torch.nn import Parameter

from ..setup import TrainingState
from ..zero import partitioned
from .best import BestWeights

# Attributes of DeepSpeed's engine.
COUNTERS = ("global_steps", "global_samples", "skipped_steps")
# An object in the state of a ZeRO optimizer.
SCALER = "loss_scaler"
# Another one, for DeepSpeed's own tools alone.
SLICES = "param_slice_mappings"


class CheckpointState:
    """The state of a training in this process, to be stored and restored."""

    def __init__(self, training: TrainingState, best: BestWeights, accelerator):
        """Find the optimizer and the scaler inside their wrappers."""
        self.training = training
        self.best = best
        self.device = accelerator.device
        engine = training.engine
        self.deepspeed = hasattr(engine, COUNTERS[0])
        # accelerate and DeepSpeed wrap the optimizer; at ZeRO 1 to 3 DeepSpeed's own replaces it
        self.optimizer = engine.optimizer if self.deepspeed else training.optimizer.optimizer
        self.zero = hasattr(self.optimizer, SCALER)
        self.scaler = getattr(engine, "torch_autocast_z0_gradscaler", None) or accelerator.scaler

    def shared_state(self) -> dict:
        """Return the state that is equal in every process."""
        # read by the main process alone, so nothing here may need the others
        ema = self.training.ema
        counters = {}
        if self.deepspeed:
            counters = {name: getattr(self.training.engine, name) for name in COUNTERS}
        return {
            "weights": self._weights(),
            "optimizer": None if self.zero else self.optimizer.state_dict(),
            "mean": ema.state_dict() if ema else None,
            "scaler": self.scaler.state_dict() if self.scaler else None,
            "counters": counters,
            "best": self.best.state(),
        }

    def link_files(self, checkpoint: Path, step: int) -> dict[str, str]:
        """Add further files to a checkpoint; return their SHA-256 by name. For the main process."""
        return self.best.link_into(checkpoint, step)

    def process_state(self) -> dict:
        """Return the state of this process alone. Every process must call this."""
        with _assembled(self.optimizer):
            optimizer = self._optimizer_part() if self.zero else None
            loss_scale = self.training.student.loss_scale
            return {
                "random": _generator_states(self.device),
                "optimizer": optimizer,
                "loss_scale": loss_scale.state() if loss_scale else None,
            }

    def restore(self, shared: dict, process: dict):
        """Restore `shared_state` and `process_state`. Every process must call this.

        Errors: any, if a state does not fit; this one is then neither the old nor the new one.
        """
        # in place, because the optimizer and DeepSpeed hold these very tensors
        with torch.no_grad():
            for parameter, saved in zip(self._weights(), shared["weights"], strict=True):
                if parameter.shape != saved.shape:
                    raise ValueError(
                        f"a weight of shape {list(saved.shape)}, for one of {list(parameter.shape)}"
                    )
                parameter.copy_(saved)
        if self.zero:
            self._restore_optimizer_part(process["optimizer"])
        else:
            self.optimizer.load_state_dict(shared["optimizer"])
        if self.training.ema:
            self.training.ema.load_state_dict(shared["mean"])
            # its tensors come from the file, on the CPU
            self.training.ema.to(self.device)
        if self.scaler:
            self.scaler.load_state_dict(shared["scaler"])
        if self.training.student.loss_scale:
            self.training.student.loss_scale.load_state(process["loss_scale"])
        _place_step_counters(self.optimizer)
        if self.deepspeed:
            for name in COUNTERS:
                setattr(self.training.engine, name, shared["counters"][name])
        self.best.load_state(shared["best"])
        _restore_generators(process["random"], self.device)

    def _weights(self) -> list[Parameter]:
        # at ZeRO 3 the parts of the optimizer hold them
        return [] if partitioned(self.training.parameters) else list(self.training.parameters)

    def _optimizer_part(self) -> dict:
        state = self.optimizer.state_dict()
        # the scaler is an object of DeepSpeed's: only its numbers are plain values
        scaler = vars(state[SCALER])
        numbers = {
            name: value for name, value in scaler.items() if isinstance(value, bool | int | float)
        }
        return {name: x for name, x in state.items() if name != SLICES} | {SCALER: numbers}

    def _restore_optimizer_part(self, saved: dict):
        scaler = self.optimizer.loss_scaler
        attributes = vars(scaler)
        attributes.update({k: v for k, v in saved[SCALER].items() if k in attributes})
        with _assembled(self.optimizer):
            # DeepSpeed takes the states of all ranks, and reads its own alone
            states = [None] * distributed.get_world_size()
            states[distributed.get_rank()] = saved | {SCALER: scaler}
            self.optimizer.load_state_dict(states, load_from_fp32_weights=True)


def _place_step_counters(optimizer: Any):
    """Move the counters of a fused optimizer to its weights: those of a file are on the CPU."""
    for group in optimizer.param_groups:
        for parameter in group["params"] if group.get("fused") else []:
            state = optimizer.state[parameter]
            if "step" in state:
                state["step"] = state["step"].to(parameter.device)


@contextmanager
def _assembled(optimizer: Any) -> Iterator[None]:
    """Let the optimizer of ZeRO 3 assemble its parts, as DeepSpeed does around its checkpoints."""
    if hasattr(optimizer, "checkpoint_event_prologue"):
        optimizer.checkpoint_event_prologue()
    yield
    if hasattr(optimizer, "checkpoint_event_epilogue"):
        optimizer.checkpoint_event_epilogue()


def _generator_states(device: torch.device) -> dict:
    """Return the states of this process' random generators."""
    # numpy's and Python's too, which some library may draw from
    kind, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "gpu": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "python": random.getstate(),
        "numpy": (kind, keys.tolist(), *rest),
    }


def _restore_generators(states: dict, device: torch.device):
    torch.set_rng_state(states["torch"])
    # None if it was trained on a CPU until here
    if device.type == "cuda" and states["gpu"] is not None:
        torch.cuda.set_rng_state(states["gpu"], device)
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
