"""One training loop for the three networks of the base: resumable, with averaged weights, the same on every run."""

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

Batch = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Fit:
    """How long and how fast to train one network."""

    steps: int
    """Optimizer steps."""
    batch: int
    """Examples a step."""
    lr: float
    """Highest learning rate; a twentieth of the steps leads up to it, a cosine down from it to a hundredth."""
    ema: float = 0.999
    """Decay of the averaged weights, which are the ones that are kept."""
    seed: int = 0


def fit(
    name: str,
    model: torch.nn.Module,
    draw_batch: Callable[[torch.Generator], Batch],
    loss: Callable[..., torch.Tensor],
    how: Fit,
    folder: Path,
) -> dict:
    """Train `model` in place; it ends with its averaged weights.

    draw_batch: examples from a generator that is seeded by the step, so that a resumed training sees what an
    uninterrupted one would. loss: the batch's scalar loss, under bf16 autocast. folder: `NAME.jsonl` gets a line each
    50 steps, `NAME.safetensors` the state each 500; a later call goes on from there, if it has the same first weights, the
    same first batch and the same `how`.
    Returns steps, samples, seconds and the mean loss of the last 50 steps.
    """
    folder.mkdir(parents=True, exist_ok=True)
    device = next(model.parameters()).device
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, how.lr, betas=(0.9, 0.99), weight_decay=1e-3)
    average = EMAModel(parameters, decay=how.ema, use_ema_warmup=True, power=0.75)
    key = _key(model, draw_batch, how)
    first, seconds = _resume(folder / f"{name}.safetensors", key, model, optimizer, average)
    if not first:
        (folder / f"{name}.jsonl").unlink(missing_ok=True)
    start, recent, mean = time.perf_counter() - seconds, [], math.nan
    model.train()
    for step in range(first, how.steps):
        generator = torch.Generator().manual_seed(how.seed * 1_000_003 + step)
        for group in optimizer.param_groups:
            group["lr"] = how.lr * _schedule(step, how.steps)
        with torch.autocast(device.type, torch.bfloat16):
            value = loss(*(tensor.to(device) for tensor in draw_batch(generator)))
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.step(parameters)
        recent.append(float(value.detach()))
        if (step + 1) % 50 == 0 or step + 1 == how.steps:
            mean, recent = sum(recent) / len(recent), []
            seconds = time.perf_counter() - start
            with (folder / f"{name}.jsonl").open("a") as log:
                log.write(
                    json.dumps(
                        {"step": step + 1, "loss": round(mean, 6), "seconds": round(seconds, 1)}
                    )
                    + "\n"
                )
        if (step + 1) % 500 == 0 or step + 1 == how.steps:
            meta = {"key": key, "step": str(step + 1), "seconds": str(time.perf_counter() - start)}
            _save(folder / f"{name}.safetensors", meta, model, optimizer, average)
    average.copy_to(parameters)
    model.eval()
    return {
        "steps": how.steps,
        "samples": how.steps * how.batch,
        "seconds": round(seconds),
        "loss": _last_loss(folder, name),
    }


def _last_loss(folder: Path, name: str) -> float:
    return json.loads((folder / f"{name}.jsonl").read_text().splitlines()[-1])["loss"]


def _schedule(step: int, steps: int) -> float:
    warm = max(1, steps // 20)
    if step < warm:
        return (step + 1) / warm
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def _key(model: torch.nn.Module, draw_batch: Callable[[torch.Generator], Batch], how: Fit) -> str:
    """What a training's state belongs to: change the seed, the book or a network that came before, and it is another."""
    digest = sha256(repr(how).encode())
    with torch.autocast(next(model.parameters()).device.type, torch.bfloat16):
        first = draw_batch(torch.Generator().manual_seed(how.seed * 1_000_003))
    for tensor in (*model.state_dict().values(), *first):
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _save(path: Path, meta: dict[str, str], model, optimizer, average: EMAModel):
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"average.{i}": v for i, v in enumerate(average.shadow_params)}
    tensors |= {
        f"adam.{i}.{k}": v
        for i, state in optimizer.state_dict()["state"].items()
        for k, v in state.items()
    }
    beside = path.with_suffix(".part")
    tensors = {
        k: v.detach().clone(memory_format=torch.contiguous_format) for k, v in tensors.items()
    }
    save_file(tensors, beside, meta)
    open_to_others(beside)
    beside.replace(path)


def _resume(path: Path, key: str, model, optimizer, average: EMAModel) -> tuple[int, float]:
    """Put back what `_save` wrote, if it is of this training; the next step and the seconds spent so far."""
    if not path.exists():
        return 0, 0.0
    with safe_open(path, "pt") as opened:
        meta = opened.metadata()
    if meta.get("key") != key:
        return 0, 0.0
    tensors = load_file(path)
    model.load_state_dict(
        {k[len("model.") :]: v for k, v in tensors.items() if k.startswith("model.")}
    )
    for i, shadow in enumerate(average.shadow_params):
        shadow.copy_(tensors[f"average.{i}"])
    average.optimization_step = int(meta["step"])
    state: dict = {}
    for key, value in tensors.items():
        if key.startswith("adam."):
            _, index, name = key.split(".")
            state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )
    return int(meta["step"]), float(meta["seconds"])
