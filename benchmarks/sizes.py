"""Bases with random weights: ten times the embedded UNet, and SD 2.1's true size."""

import json
import shutil
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from nbs_lib.models.loading import EMBEDDED

TRUE_SIZE = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "attention_head_dim": [5, 10, 20, 20],
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
}
"""The published configuration of SD 2.1's UNet, 866 M parameters, at 512 pixels."""
TRUE_VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
}
"""The configuration of Stable Diffusion's VAE, 84 M parameters."""
TEN_TIMES = {"block_out_channels": [192, 448], "attention_head_dim": [6, 14]}
"""Settings that turn the embedded UNet's 4.4 M parameters into 44 M."""


def copy_part(part: Path, folder: Path):
    """Copy a file or folder of a base into another base, which may have no links out of it."""
    copy = shutil.copytree if part.is_dir() else shutil.copyfile
    copy(part, folder / part.name)


def ten_times(folder: Path) -> Path:
    """Write the embedded base with a UNet of ten times its parameters, with random weights."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in EMBEDDED.iterdir():
        if part.name != "unet" and not (folder / part.name).exists():
            copy_part(part, folder)
    settings = json.loads((EMBEDDED / "unet" / "config.json").read_text())
    with torch.random.fork_rng(devices=()):  # GPUs' generators would touch CUDA
        torch.manual_seed(0)
        unet = UNet2DConditionModel.from_config(settings | TEN_TIMES)
    unet.save_pretrained(folder / "unet", safe_serialization=True)
    return folder


def true_size(dtype: torch.dtype = torch.float32) -> UNet2DConditionModel:
    """Return SD 2.1's UNet with random weights.

    It is built in its final type, because a conversion would hold the weights twice.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        return UNet2DConditionModel(**TRUE_SIZE)
    finally:
        torch.set_default_dtype(before)


def true_base(folder: Path) -> Path:
    """Write a base with a random UNet of SD 2.1's size in bf16 and a random text encoder.

    The text encoder has the UNet's width. The VAE is the embedded one, whose latents of 256 pixels
    are as large as the real one's of 512.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("vae", "scheduler", "tokenizer", "model_index.json"):
        copy_part(EMBEDDED / part, folder)
    with torch.random.fork_rng(devices=()):  # GPUs' generators would touch CUDA
        torch.manual_seed(0)
        true_size(torch.bfloat16).save_pretrained(
            folder / "unet", safe_serialization=True, max_shard_size="10GB"
        )
        settings = CLIPTextConfig.from_pretrained(EMBEDDED / "text_encoder")
        settings.hidden_size, settings.intermediate_size, settings.num_attention_heads = (
            1024,
            1024,
            16,
        )
        CLIPTextModel(settings).save_pretrained(folder / "text_encoder", safe_serialization=True)
    return folder


def toy_size(dtype: torch.dtype = torch.float32) -> UNet2DConditionModel:
    """Return a UNet of the embedded one's size with random weights."""
    return UNet2DConditionModel.from_config(
        json.loads((EMBEDDED / "unet" / "config.json").read_text())
    ).to(dtype)
