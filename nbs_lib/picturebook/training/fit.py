"""One training loop for the three networks of the base: resumable, deterministic, with EMA."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import torch
from diffusers.training_utils import EMAModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ...files import open_to_others

Tensors = tuple[torch.Tensor, ...]
DrawBatch = Callable[[torch.Generator], Tensors]
LOG_STEPS = 50
SAVE_STEPS = 500


@dataclass(frozen=True)
class Fit:
    """Length and rate of one network's training."""

    steps: int
    batch: int  # examples in a step
    lr: float  # highest: a twentieth of the steps leads up to it, a cosine down to a hundredth
    ema: float = 0.999  # decay of the averaged weights, which are the result
    seed: int = 0


class Trainer:
    """A network with its optimizer, its averaged weights, and its files of state and losses."""

    def __init__(self, name: str, model: torch.nn.Module, options: Fit, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.model = model
        self.options = options
        self.state_file = folder / f"{name}.safetensors"
        self.log_file = folder / f"{name}.jsonl"
        self.device = next(model.parameters()).device
        self.parameters = [weight for weight in model.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters, options.lr, betas=(0.9, 0.99), weight_decay=1e-3
        )
        # warmup, because the first weights are far from the result
        self.average = EMAModel(self.parameters, decay=options.ema, use_ema_warmup=True, power=0.75)

    def generator(self, step: int) -> torch.Generator:
        """Return the generator of a step's batch, so a resumed training draws the same batches."""
        return torch.Generator().manual_seed(self.options.seed * 1_000_003 + step)

    def step(self, step: int, draw_batch: DrawBatch, loss: Callable[..., torch.Tensor]) -> float:
        """Make one optimizer step and return its loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.lr * _schedule(step, self.options.steps)
        with torch.autocast(self.device.type, torch.bfloat16):
            batch = [tensor.to(self.device) for tensor in draw_batch(self.generator(step))]
            value = loss(*batch)
        value.backward()
        # one bad batch must not ruin a short training
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.step(self.parameters)
        return float(value.detach())

    def key(self, draw_batch: DrawBatch) -> str:
        """Return a hash of the options, the first weights and the first batch.

        A state of another seed, book or earlier network has another key.
        """
        digest = sha256(repr(self.options).encode())
        with torch.autocast(self.device.type, torch.bfloat16):
            batch = draw_batch(self.generator(0))
        for tensor in (*self.model.state_dict().values(), *batch):
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def save(self, metadata: dict[str, str]):
        """Write the state, atomically."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for i, value in enumerate(self.average.shadow_params):
            tensors[f"average.{i}"] = value
        for i, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{i}.{name}": value for name, value in state.items()}
        # safetensors refuses channels_last and tensors that share memory
        copies = {
            name: value.detach().clone(memory_format=torch.contiguous_format)
            for name, value in tensors.items()
        }
        part = self.state_file.with_suffix(".part")
        save_file(copies, part, metadata)
        open_to_others(part)
        part.replace(self.state_file)

    def resume(self, key: str) -> tuple[int, float]:
        """Load the saved state if it has this key; return the next step and the seconds so far."""
        if not self.state_file.exists():
            return 0, 0.0
        with safe_open(self.state_file, "pt") as opened:
            metadata = opened.metadata()
        if metadata.get("key") != key:
            return 0, 0.0
        weights = {}
        states: dict[int, dict] = {}
        for name, value in load_file(self.state_file).items():
            kind, _, rest = name.partition(".")
            if kind == "model":
                weights[rest] = value
            elif kind == "average":
                self.average.shadow_params[int(rest)].copy_(value)
            else:
                index, _, field = rest.partition(".")
                states.setdefault(int(index), {})[field] = value
        self.model.load_state_dict(weights)
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": states, "param_groups": groups})
        self.average.optimization_step = int(metadata["step"])
        return int(metadata["step"]), float(metadata["seconds"])


def train_network(
    name: str,
    model: torch.nn.Module,
    draw_batch: DrawBatch,
    loss: Callable[..., torch.Tensor],
    options: Fit,
    folder: Path,
) -> dict:
    """Train a network in place; it ends with its averaged weights.

    draw_batch: returns examples for a step's generator
    loss: returns a batch's loss, under bf16 autocast
    folder: of `NAME.jsonl`, a line for each 50 steps, and `NAME.safetensors`, the state at each
        500; a later call resumes if first weights, first batch and options are the same

    Returns steps, samples, seconds and the mean loss of the last 50 steps.
    """
    trainer = Trainer(name, model, options, folder)
    key = trainer.key(draw_batch)
    first, seconds = trainer.resume(key)
    if not first:
        trainer.log_file.unlink(missing_ok=True)
    # counts the time before an interruption too
    start = time.perf_counter() - seconds
    losses = []
    model.train()
    for step in range(first, options.steps):
        losses.append(trainer.step(step, draw_batch, loss))
        finished = step + 1
        is_last = finished == options.steps
        if finished % LOG_STEPS == 0 or is_last:
            seconds = time.perf_counter() - start
            mean = sum(losses) / len(losses)
            _log(trainer.log_file, finished, mean, seconds)
            losses = []
        # a kill loses 500 steps at most
        if finished % SAVE_STEPS == 0 or is_last:
            elapsed = time.perf_counter() - start
            trainer.save({"key": key, "step": str(finished), "seconds": str(elapsed)})
    trainer.average.copy_to(trainer.parameters)
    model.eval()
    return {
        "steps": options.steps,
        "samples": options.steps * options.batch,
        "seconds": round(seconds),
        "loss": _last_loss(trainer.log_file),
    }


def _log(file: Path, step: int, loss: float, seconds: float):
    row = {"step": step, "loss": round(loss, 6), "seconds": round(seconds, 1)}
    with file.open("a") as log:
        log.write(json.dumps(row) + "\n")


def _last_loss(file: Path) -> float:
    return json.loads(file.read_text().splitlines()[-1])["loss"]


def _schedule(step: int, steps: int) -> float:
    """Return the learning rate's factor: linear warmup, then a cosine down to 0.01."""
    warmup = max(1, steps // 20)
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))
