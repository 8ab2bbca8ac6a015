"""The setups of benchmarks/gpu.py: training steps on random numbers, in their own processes."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import torch

from nbs_lib.config import Train
from nbs_lib.launch.launcher import RESULT_FILE, launch
from nbs_lib.run.run import Run

STEPS, LEFT_OUT = 12, 4
OURS = ("live", "cached")


@dataclass(frozen=True)
class Setup:
    """One launch of the benchmark.

    methods: the reference alone, or ours, live and cached. Ours train the same weights one after
        the other, because starting processes and filling a UNet takes longer than their steps.
    zero_stage: DeepSpeed's ZeRO stage.
    compile: as the parameter of a training.
    batch: examples of a process.
    profiled: summarize a profile of each method's steps.
    """

    methods: tuple[str, ...]
    zero_stage: int = 0
    compile: str = "off"
    batch: int = 8
    profiled: bool = False


def train(config: Train, run: Run, inputs: dict):
    """Train a LoRA of rank 16 on bf16 weights, with a live teacher or with its stored answers."""
    from diffusers import DDIMScheduler
    from sizes import toy_size, true_size

    from nbs_lib.models import NoiseSchedule, find_base
    from nbs_lib.train.accelerator import new_accelerator, wrap_for_training
    from nbs_lib.train.compilation import begin_pass, compile_denoiser
    from nbs_lib.train.networks import build_networks, choose_attention, set_memory_format
    from nbs_lib.train.objectives import guidance
    from nbs_lib.train.setup import new_optimizer
    from nbs_lib.train.student import Student
    from nbs_lib.train.zero import partitioned

    accelerator = new_accelerator(config, run.folder)
    device, toy = accelerator.device, inputs["toy"]
    torch.manual_seed(0)
    with torch.device(device):
        base = SimpleNamespace(denoiser=toy_size if toy else true_size)
        networks = build_networks(base, config)
    unet = networks.denoiser.to(device)
    alphas = DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012
    ).alphas_cumprod.to(device)
    schedule = NoiseSchedule.diffusion(alphas, "epsilon")
    # any base of SD 1.x or 2.x calls a UNet alike
    student = Student(unet, schedule, find_base("embedded").predict, torch.bfloat16)
    choose_attention(unet, torch.bfloat16, device.type)
    engine, optimizer = wrap_for_training(accelerator, student, new_optimizer(networks, config))
    if not partitioned(networks.parameters):
        set_memory_format(unet)
    batch = random_batch(unet.config, config.batch_size, device)
    batches = {"live": replace(batch, answers=None), "cached": batch}

    def step(batch):
        begin_pass(config)
        loss = guidance(engine, student, batch, config).mean()
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        return loss

    steps = {method: partial(step, batches[method]) for method in inputs["methods"]}

    def compile_student():
        # otherwise it does not compile code that it saw during counting
        torch.compiler.reset()
        compile_denoiser(unet, config)
        student.compiled = True

    before_timing = compile_student if inputs["compile"] != "off" else None
    measure_steps(accelerator, run, steps, config, inputs["profiled"], before_timing)


def reference(config: Train, run: Run, inputs: dict):
    """Train by the reference method.

    Two UNets in fp32, all weights trained, VAE and text encoder in every step, three UNet passes.
    """
    from diffusers import AutoencoderKL, DDPMScheduler
    from sizes import TRUE_VAE, toy_size, true_size
    from transformers import CLIPTextConfig, CLIPTextModel

    from nbs_lib.train.accelerator import new_accelerator, wrap_for_training

    accelerator = new_accelerator(config, run.folder)
    device, toy, n = accelerator.device, inputs["toy"], config.batch_size
    with torch.device(device):
        student, teacher = ((toy_size if toy else true_size)(torch.float32) for _ in range(2))
        side, width = student.config.sample_size, student.config.cross_attention_dim
        vae = AutoencoderKL(**TRUE_VAE)
        layers, heads = (2, 4) if toy else (23, 16)
        text_config = CLIPTextConfig(
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
        )
        text_encoder = CLIPTextModel(text_config)
        pixels, ids = torch.randn(n, 3, 8 * side, 8 * side), torch.randint(0, 1000, (2 * n, 77))
    teacher.requires_grad_(False)
    scheduler, optimizer = DDPMScheduler(), torch.optim.AdamW(student.parameters(), lr=1e-5)
    engine, optimizer = wrap_for_training(accelerator, student.train(), optimizer)

    def step():
        with torch.no_grad():
            latents = vae.encode(pixels).latent_dist.sample()
            uncond, cond = text_encoder(ids).last_hidden_state.chunk(2)
            noise, t = torch.randn_like(latents), torch.randint(0, 1000, (n,), device=device)
            noisy = scheduler.add_noise(latents, noise, t)
            without, with_ = teacher(noisy, t, uncond).sample, teacher(noisy, t, cond).sample
        loss = (engine(noisy, t, cond).sample - without - 7.5 * (with_ - without)).square().mean()
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        return loss

    measure_steps(accelerator, run, {"reference": step}, config, inputs["profiled"])


def random_batch(unet_config, n: int, device: torch.device):
    """Return random numbers in the shape of a batch with answers. unet_config: its sizes."""
    from nbs_lib.train.data.batch import Batch

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, n, 4, unet_config.sample_size, unet_config.sample_size, generator=generator)
    text = torch.randn(2, n, 77, unet_config.cross_attention_dim, generator=generator)
    t, ones = torch.randint(0, 1000, (n,), generator=generator), torch.ones(n)
    return Batch(
        x[0], x[1], t, text[0], text[1], 7.5 * ones, ones, torch.arange(n), (x[2], x[3])
    ).to(device)


def measure_steps(
    accelerator,
    run: Run,
    steps: dict[str, Callable],
    config: Train,
    profiled: bool,
    before_timing: Callable | None = None,
):
    """Count the operations of each method's first step, time its others, and write the figures.

    profiled: whether to add a summary of a profile.
    before_timing: called after the counting, because compiled code cannot be counted, nor counted
        code compiled.
    """
    from gpu_profile import profile_summary
    from torch.utils.flop_counter import FlopCounterMode

    from nbs_lib.train.memory.estimate import MIB, measured_peak

    gpu, flops, figures = accelerator.device.type == "cuda", {}, {}
    for method, step in steps.items():
        with FlopCounterMode(display=False) as counter:
            step()
        flops[method] = counter.get_total_flops()
    if before_timing:
        before_timing()
    for method, step in steps.items():
        if gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        seconds = []
        compiled = time.perf_counter()
        if before_timing:
            step()
        compiled = time.perf_counter() - compiled
        for _ in range(config.steps):
            start = time.perf_counter()
            loss = float(step().detach())  # a GPU is done by then
            seconds.append(time.perf_counter() - start)
        typical = median(seconds[LEFT_OUT:])
        figures[method] = {
            "examples_per_s": accelerator.num_processes * config.batch_size / typical,
            "peak_mib": measured_peak(gpu) / MIB,
            "flops_per_s": flops[method] / typical,
            "loss": loss,
            "processes": accelerator.num_processes,
        }
        if before_timing:
            figures[method]["compile_seconds"] = compiled
        if profiled:
            figures[method]["profile"] = profile_summary(step, gpu)
    rate = matmul_rate(accelerator.device)
    for values in figures.values():
        values["share_of_matmul"] = values.pop("flops_per_s") / rate
    if accelerator.is_main_process:
        (run.folder / RESULT_FILE).write_text(json.dumps(figures))
    accelerator.wait_for_everyone()


def matmul_rate(device: torch.device) -> float:
    """Return the operations per second of a large product of bf16 matrices on this machine."""
    n, products = (8192, 20) if device.type == "cuda" else (1024, 1)
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(8):
        start = time.perf_counter()
        for _ in range(products):  # queued without a wait, so that a GPU is never idle
            c = a @ b
        float(c[0, 0])
        seconds.append((time.perf_counter() - start) / products)
    return 2 * n**3 / median(seconds[3:])


def measure(folder: Path, setup: Setup, toy: bool) -> dict[str, dict]:
    """Launch a setup and return its figures by method.

    folder: an empty folder.
    Errors: LaunchError with the reason of the failure.
    """
    steps, batch = (6, 2) if toy else (STEPS, setup.batch)
    options = {
        "zero_stage": setup.zero_stage,
        "target_modules": "attention",
        "checkpointing_steps": 0,
        "batch_size": batch,
        "steps": steps,
        "compile": setup.compile,
        "learning_rate": 1e-4,
    }
    precision, function = ("fp32", reference) if "reference" in setup.methods else ("bf16", train)
    return launch(
        function,
        Train(str(folder), **options, mixed_precision=precision),
        Run(folder),
        vars(setup) | {"toy": toy},
    )
