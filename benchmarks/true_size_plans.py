"""Memory of a LoRA training of the large bases, planned by a step on tensors without numbers.

    python benchmarks/true_size_plans.py     # or: make bench-plans

The denoisers have the published configurations; no weight is read or drawn. A training is that of
the base's recipe: guidance, a live teacher, bf16 with gradient checkpointing, batch 1, one GPU. The
text encoders and the VAE are not in it, because 1_prepare has done their work by then.
"""

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import torch

from nbs_lib.config import Train
from nbs_lib.models import StableDiffusion, StableDiffusion3, StableDiffusionXL
from nbs_lib.train.data.batch import Batch
from nbs_lib.train.memory.dry_run import measure_step
from nbs_lib.train.memory.estimate import estimate_bytes

SD3 = {
    "_class_name": "SD3Transformer2DModel",
    "sample_size": 128,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 2048,
    "qk_norm": "rms_norm",
}
SDXL = {
    "sample_size": 128,
    "block_out_channels": [320, 640, 1280],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "transformer_layers_per_block": [1, 2, 10],
    "attention_head_dim": [5, 10, 20],
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
BASES = {
    "SDXL": (StableDiffusionXL, SDXL),
    "SD 3.5 medium": (
        StableDiffusion3,
        SD3
        | {
            "num_layers": 24,
            "num_attention_heads": 24,
            "attention_head_dim": 64,
            "caption_projection_dim": 1536,
            "pos_embed_max_size": 384,
            "dual_attention_layers": list(range(13)),
        },
    ),
    "SD 3.5 large": (
        StableDiffusion3,
        SD3
        | {
            "num_layers": 38,
            "num_attention_heads": 38,
            "attention_head_dim": 64,
            "caption_projection_dim": 2432,
            "pos_embed_max_size": 192,
        },
    ),
}
"""The published configurations, by family."""
# channels of the latents, tokens, width and pooled width of the texts
TEXTS = {StableDiffusionXL: (4, 77, 2048, 1280), StableDiffusion3: (16, 333, 4096, 2048)}
TRAINING = {
    "rank": 64,
    "alpha": 64.0,
    "target_modules": "feedforward",
    "mixed_precision": "bf16",
    "gradient_checkpointing": True,
    "batch_size": 1,
    "validation_steps": 0,
}


def base_of(name: str, folder: Path) -> StableDiffusion:
    """Return a base with settings and no weights."""
    family, settings = BASES[name]
    vae = {"block_out_channels": [128, 256, 512, 512], "latent_channels": TEXTS[family][0]}
    for part, values in ((family.denoiser_part, settings), ("vae", vae)):
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_text(json.dumps(values))
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text("{}")
    return family(name, folder, name)


def examples_of(family: type[StableDiffusion], side: int, size: int) -> SimpleNamespace:
    """Return examples that have one batch. side: of the latents. size: of the batch."""
    channels, tokens, width, pooled_width = TEXTS[family]
    latents = torch.zeros(size, channels, side, side)
    context, pooled = torch.zeros(size, tokens, width), torch.zeros(size, pooled_width)
    batch = Batch(
        latents,
        latents,
        torch.full((size,), 500),
        context,
        context,
        w=torch.full((size,), 5.0),
        weight=torch.ones(size),
        example=torch.arange(size),
        pooled=pooled,
        uncond_pooled=pooled,
    )
    return SimpleNamespace(nbytes=0, held_out=[], batch=lambda *_: batch)


def plan(name: str, resolution: int = 1024, **options: object) -> dict[str, float]:
    """Return weights in millions, and the GiB of a GPU by part, of a base's LoRA training."""
    config = replace(Train(), **TRAINING | options)
    with tempfile.TemporaryDirectory() as folder:
        base = base_of(name, Path(folder))
        examples = examples_of(BASES[name][0], resolution // 8, config.batch_size)
        sizes = measure_step(config, base, examples, gpu=True)
    parts, passing = estimate_bytes(config, sizes, ranks=1)
    # the rest is in the machine's memory
    names = ("base", "trained weights", "gradients", "optimizer")
    gib = {part: parts[part] / 2**30 for part in names}
    gib["activations"] = passing["activations"] / 2**30
    return {"parameters": sizes.denoiser / 1e6, "GiB": sum(gib.values())} | gib


if __name__ == "__main__":
    for name in BASES:
        for options in ({}, {"batch_size": 8}, {"gradient_checkpointing": False}):
            rows = {key: round(value, 2) for key, value in plan(name, **options).items()}
            print(name, options, rows, flush=True)
