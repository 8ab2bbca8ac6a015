"""The sampling side of benchmarks/gpu.py: guided pictures by precision and engine."""

import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from sizes import true_base

from nbs_lib.compare.sampling.engines import on_engine
from nbs_lib.compare.sampling.precision import in_precision, relative_difference
from nbs_lib.models import find_base
from nbs_lib.models.lora.verification import predict_fixed_noise

STEPS, ROUNDS, PICTURES = 25, 3, 4
WAYS = {
    "guided, fp32": ("no", "eager"),
    "guided, bf16": ("bf16", "eager"),
    "guided, fp16": ("fp16", "eager"),
    "guided, bf16, compiled": ("bf16", "compile"),
}


def sample(folder: Path, toy: bool) -> dict[str, dict[str, Any]]:
    """Return pictures a second, and the distance of the prediction from fp32's, by way.

    folder: an empty folder for a base of random weights.
    toy: the embedded base instead, eagerly.
    """
    base = find_base("embedded" if toy else str(true_base(folder / "base")))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pipe = base.pipeline().to(device)
    pipe.set_progress_bar_config(disable=True)
    expected = predict_fixed_noise(pipe.unet, base)
    figures = {}
    for name, (precision, engine) in WAYS.items():
        if toy and engine != "eager":
            continue
        start = time.perf_counter()
        unet = in_precision(base.denoiser().to(device), precision)
        pipe.unet = on_engine(unet, engine, base)
        difference = relative_difference(expected, predict_fixed_noise(unet, base))
        draw(pipe, 2 if toy else STEPS)
        ready = time.perf_counter() - start
        seconds = [draw(pipe, 2 if toy else STEPS) for _ in range(ROUNDS)]
        figures[name] = {
            "pictures_per_s": PICTURES / median(seconds),
            "seconds_until_ready": ready,
            "difference": difference,
        }
    return figures


def draw(pipe: Any, steps: int) -> float:
    """Draw a batch of guided pictures, and return the seconds."""
    start = time.perf_counter()
    # pictures as arrays are on the CPU, so a GPU is done by then
    pipe(["a photo"] * PICTURES, num_inference_steps=steps, guidance_scale=7.5, output_type="np")
    return time.perf_counter() - start
