"""A training step at Stable Diffusion 2.1's true size, with random weights: does it fit, and how long does it take?

    python benchmarks/true_size.py     # or: make bench-true-size; on a CPU it needs about 10 GiB of memory and some minutes

The UNet has the published configuration of SD 2.1 (866 M parameters), its frozen weights in bf16 and a LoRA in fp32, latents
of 512 pixels, gradient checkpointing, kept answers: one forward and backward pass and AdamW's step, batch 1, in one process.
The figures go to benchmarks/results/true-size.json, the table to benchmarks/README.md.
"""

import resource
import time
from datetime import UTC, datetime

import page
import torch
from diffusers import DDIMScheduler
from sizes import true_size

from nbs_lib.adapter import attach
from nbs_lib.config import Train
from nbs_lib.machine import facts
from nbs_lib.train.data import Batch
from nbs_lib.train.objectives import guidance
from nbs_lib.train.parts import lay_out
from nbs_lib.train.student import Student

STEPS = 3


def main():
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    unet = true_size(torch.bfloat16)
    parameters = attach(unet.to(device), 16, 16.0, seed=0)
    unet.enable_gradient_checkpointing()
    lay_out(unet.train(), torch.bfloat16)
    schedule = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    student = Student(unet, schedule.alphas_cumprod.to(device), "epsilon", torch.bfloat16)
    optimizer, seconds = torch.optim.AdamW(parameters, 1e-4), []
    for _ in range(STEPS):
        start = time.perf_counter()
        loss = guidance(student, student, a_batch(device), Train()).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()  # a GPU is done by then
        seconds.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else 0.0
    told = {
        "parameters": sum(p.numel() for p in unet.parameters()) - sum(p.numel() for p in parameters),
        "trained": sum(p.numel() for p in parameters),
        "seconds": seconds,
        "memory_gib": peak or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "loss": float(loss),
    }
    page.save("true-size", {"date": datetime.now(UTC).date().isoformat(), **facts(), **told})
    print(told)


def a_batch(device: torch.device) -> Batch:
    """One example of random numbers, with the teacher's answers beside it."""
    x, text = torch.randn(4, 1, 4, 64, 64), torch.randn(2, 1, 77, 1024)
    one = torch.ones(1)
    batch = Batch(x[0], x[1], torch.tensor([500]), text[0], text[1], 7.5 * one, one, torch.tensor([0]), (x[2], x[3]))
    return batch.to(device)


if __name__ == "__main__":
    main()
