"""One training loop for the base's networks: resumable, within a time, with averaged weights."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import torch
from diffusers.training_utils import EMAModel

from ....files import append_jsonl, read_jsonl, write_jsonl
from .optimizers import new_optimizers
from .state import load_state, save_state

Tensors = tuple[torch.Tensor, ...]
DrawBatch = Callable[[torch.Generator], Tensors]
LOG_STEPS = 50
SAVE_SECONDS = 120.0  # a kill loses two minutes at most


@dataclass(frozen=True)
class Fit:
    """Length and rate of one network's training."""

    steps: int
    batch: int  # examples in a step
    lr: float  # highest: a twentieth of the training leads up to it, a cosine down to a hundredth
    ema: float = 0.999  # decay of the averaged weights, which are the result
    matrix_lr: float = 0.0  # highest of Muon, for the matrices; 0 leaves them to AdamW
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
        self.optimizers = new_optimizers(self.parameters, options.lr, options.matrix_lr)
        # warmup, because the first weights are far from the result
        self.average = EMAModel(self.parameters, decay=options.ema, use_ema_warmup=True, power=0.75)

    def generator(self, step: int) -> torch.Generator:
        """Return the generator of a step's batch, so a resumed training draws the same batches."""
        return torch.Generator().manual_seed(self.options.seed * 1_000_003 + step)

    def step(
        self, step: int, factor: float, draw_batch: DrawBatch, loss: Callable[..., torch.Tensor]
    ) -> float:
        """Make one step of the optimizers at a factor of their rates and return its loss."""
        rates = (self.options.lr, self.options.matrix_lr)
        for optimizer, rate in zip(self.optimizers, rates, strict=False):
            optimizer.param_groups[0]["lr"] = rate * factor
        with autocast(self.device):
            batch = [tensor.to(self.device) for tensor in draw_batch(self.generator(step))]
            value = loss(*batch)
        value.backward()
        # one bad batch must not ruin a short training
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.average.step(self.parameters)
        return float(value.detach())

    def key(self, draw_batch: DrawBatch, inputs: tuple[str, ...]) -> str:
        """Return a hash of the options, the network's layout, the first batch and the inputs.

        A state of another seed, book or earlier network has another key. Of the batch, pictures,
        tokens and timesteps count: floats may differ in the last bit on another machine, to which
        a state can be carried.

        inputs: hashes of the networks that this one is trained on
        """
        digest = sha256(repr((asdict(self.options), inputs)).encode())
        for name, weight in self.model.named_parameters():
            digest.update(f"{name} {tuple(weight.shape)}".encode())
        with autocast(self.device):
            batch = draw_batch(self.generator(0))
        for tensor in batch:
            if not tensor.is_floating_point():
                digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def save(self, key: str, step: int, seconds: float):
        """Write the state, atomically."""
        metadata = {"key": key, "step": str(step), "seconds": str(seconds)}
        save_state(self.state_file, self.model, self.average, self.optimizers, metadata)

    def resume(self, key: str) -> tuple[int, float]:
        """Load the saved state if it has this key; return the next step and the seconds so far."""
        metadata = load_state(self.state_file, key, self.model, self.average, self.optimizers)
        step = int(metadata.get("step", 0))
        # steps after the last save are made again
        rows = [row for row in read_jsonl(self.log_file) if row["step"] <= step]
        write_jsonl(self.log_file, rows)
        return step, float(metadata.get("seconds", 0))


def train_network(
    name: str,
    model: torch.nn.Module,
    draw_batch: DrawBatch,
    loss: Callable[..., torch.Tensor],
    options: Fit,
    folder: Path,
    seconds: float = math.inf,
    inputs: tuple[str, ...] = (),
) -> dict:
    """Train a network in place; it ends with its averaged weights.

    draw_batch: returns examples for a step's generator
    loss: returns a batch's loss, under autocast
    folder: of `NAME.jsonl`, a line for each 50 steps, and `NAME.safetensors`, the state, written
        every two minutes; a later call resumes if network, first batch, options and inputs are the
        same
    seconds: longest time; the learning rate falls with the share of the steps or of the time that
        is over, whichever is larger, so that a training cut short is an annealed one too
    inputs: hashes of the networks that this one is trained on

    Returns steps, samples, seconds and the mean loss of the last 50 steps.
    """
    trainer = Trainer(name, model, options, folder)
    key = trainer.key(draw_batch, inputs)
    step, elapsed = trainer.resume(key)
    # counts the time before an interruption too
    start = time.perf_counter() - elapsed
    saved = elapsed
    losses = []
    model.train()
    while (progress := max(step / options.steps, elapsed / seconds)) < 1:
        losses.append(trainer.step(step, _schedule(progress), draw_batch, loss))
        step += 1
        elapsed = time.perf_counter() - start
        is_last = step == options.steps or elapsed >= seconds
        if step % LOG_STEPS == 0 or is_last:
            row = {"step": step, "loss": _mean(losses), "seconds": round(elapsed, 1)}
            append_jsonl(trainer.log_file, row)
            losses = []
        if elapsed - saved >= SAVE_SECONDS or is_last:
            trainer.save(key, step, elapsed)
            saved = elapsed
    trainer.average.copy_to(trainer.parameters)
    model.eval()
    return {
        "steps": step,
        "samples": step * options.batch,
        "seconds": round(elapsed),
        "loss": read_jsonl(trainer.log_file)[-1]["loss"],
    }


def autocast(device: torch.device) -> torch.autocast:
    """Return bf16 autocast; on processors that do not compute in bf16, none: it would be slower."""
    able = torch.cpu.get_capabilities()
    enabled = device.type != "cpu" or able.get("avx512_bf16", False) or able.get("amx_bf16", False)
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def _mean(losses: list[float]) -> float:
    return round(sum(losses) / len(losses), 6)


def _schedule(progress: float) -> float:
    """Return the learning rate's factor: linear warmup, then a cosine down to 0.01.

    progress: share of the training that is over, in [0, 1)
    """
    if progress < 0.05:
        return progress / 0.05 + 0.001
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (progress - 0.05) / 0.95))
