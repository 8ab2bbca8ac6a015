"""The reference method, written as a baseline, and the floor, both run by the training launcher.

The reference distils like DeepSpeedExamples' `training/stable_diffusion`: a second UNet as the
teacher, all weights of the first one trained with AdamW in fp32, images encoded by the VAE and
captions by the text encoder in every step, three UNet passes one after the other. The floor is one
bare pass of the student, forward and backward, with no loop around it.
"""

import json
import time
from dataclasses import replace

from nbs_lib.config import Train
from nbs_lib.files import write_atomic
from nbs_lib.run.run import Run


def reference(config: Train, run: Run, inputs: dict):
    """Train for config.steps steps, and write the seconds of each to metrics.jsonl."""
    import numpy as np
    import torch

    torch.set_num_threads(1)
    from diffusers import DDPMScheduler

    from nbs_lib.models import find_base
    from nbs_lib.prepare.sources.picturebook import PictureBookSource
    from nbs_lib.train.accelerator import new_accelerator

    accelerator = new_accelerator(replace(config, mixed_precision="fp32"), run.folder)
    base, device = find_base("embedded"), accelerator.device
    fast = {"memory_format": torch.channels_last}  # the layout that ours works in
    student, teacher = (
        base.denoiser().to(device).train().requires_grad_(True),
        base.denoiser().to(device, **fast),
    )
    vae, encoders = (
        base.vae().to(device, **fast),
        [(words, encoder.to(device)) for words, encoder in base.text_encoders()],
    )
    scheduler = base.scheduler(DDPMScheduler)
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-5)
    engine, optimizer = accelerator.prepare(student, optimizer)
    examples = list(PictureBookSource("picturebook", 64, seed=accelerator.process_index))
    images = np.stack([np.asarray(example.image.draw()) for example in examples])
    pixels = (torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1).to(device, **fast)
    times = []
    for step in range(config.steps):
        start = time.perf_counter()
        rows = [(step * config.batch_size + i) % len(examples) for i in range(config.batch_size)]
        with torch.no_grad():
            latents = vae.encode(pixels[rows]).latent_dist.sample() * vae.config.scaling_factor
            cond = base.encode_prompt([examples[i].caption for i in rows], encoders).context
            uncond = base.encode_prompt([""] * len(rows), encoders).context
        noise, t = torch.randn_like(latents), torch.randint(0, 1000, (len(rows),), device=device)
        noisy = scheduler.add_noise(latents, noise, t).to(**fast)
        with torch.no_grad():
            teacher_uncond = teacher(noisy, t, uncond).sample
            teacher_cond = teacher(noisy, t, cond).sample
        target = teacher_uncond + config.guidance_scale * (teacher_cond - teacher_uncond)
        loss = torch.nn.functional.mse_loss(engine(noisy, t, cond).sample, target)
        accelerator.backward(loss)
        loss.item()  # a GPU is done by then
        times.append(time.perf_counter() - start)
    write_result(run, accelerator, times)


def floor(config: Train, run: Run, inputs: dict):
    """Run a bare student forward and backward on one ready batch, in each process by itself."""
    import torch

    torch.set_num_threads(1)
    from nbs_lib.train.accelerator import new_accelerator
    from nbs_lib.train.setup import build_training_state

    accelerator = new_accelerator(config, run.folder)
    parts = build_training_state(config, run, accelerator)
    batch = parts.examples.batch(0, accelerator.process_index, accelerator.num_processes).to(
        accelerator.device
    )
    student, x_t, times = parts.student, parts.student.noisy_latents(batch), []
    for _ in range(config.steps):
        start = time.perf_counter()
        loss = student(x_t, batch.t, batch.context, batch.pooled).square().mean()
        loss.backward()
        loss.item()
        times.append(time.perf_counter() - start)
        student.zero_grad()
    write_result(run, accelerator, times)


def write_result(run: Run, accelerator, times: list[float]):
    """Write the seconds of each step, and the result file that the launcher expects."""
    from nbs_lib.launch.launcher import RESULT_FILE

    if accelerator.is_main_process:
        lines = [json.dumps({"step": i + 1, "seconds": seconds}) for i, seconds in enumerate(times)]
        write_atomic(run.metrics, "\n".join(lines) + "\n")
        write_atomic(
            run.folder / RESULT_FILE,
            json.dumps({"distributed_type": accelerator.distributed_type.value}),
        )
    accelerator.wait_for_everyone()
