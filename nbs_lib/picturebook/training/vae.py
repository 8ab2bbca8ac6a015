"""The VAE of the base: 128 × 128 × 3 pictures to 16 × 16 × 16 latents and back."""

import math
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from ...images.convert import to_tensor
from ..canvas import SIZE
from .loop.fit import Fit, autocast, train_network

CHANNELS = 16  # of the latents: with 12, 8 or 4 fine lines of icons are lost
SIDE = 16  # of the latents
FACTOR = SIZE // SIDE
KL_WEIGHT = 1e-4  # keeps the latents near a unit normal without blurring


def new_vae(channels: tuple[int, ...] = (24, 32, 64, 64)) -> AutoencoderKL:
    """Return an untrained VAE; channels: of its blocks, from the picture to the latents."""
    blocks = len(channels)
    vae = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * blocks,
        up_block_types=["UpDecoderBlock2D"] * blocks,
        block_out_channels=channels,
        latent_channels=CHANNELS,
        norm_num_groups=8,
        sample_size=SIZE,
        mid_block_add_attention=False,
    )
    with torch.no_grad():
        # log variance: noise of unit size at the start would drown the latents
        vae.quant_conv.bias[CHANNELS:] = -6.0
    return vae


def vae_pixels(images) -> torch.Tensor:
    """Return pictures uint8 [n, h, w, 3] as fp32 [n, 3, h, w] in [-1, 1], channels last."""
    return to_tensor(images).contiguous(memory_format=torch.channels_last)


def train_vae(
    vae: AutoencoderKL,
    pictures: np.ndarray,
    options: Fit,
    folder: Path,
    seconds: float = math.inf,
) -> dict:
    """Train the VAE by the absolute error and a slight KL term, and set its scaling factor.

    pictures: uint8 [n, 128, 128, 3]

    Source: arXiv 2112.10752.
    """
    vae.to(memory_format=torch.channels_last)
    images = torch.from_numpy(pictures)

    def draw_batch(generator):
        picked = torch.randint(len(images), (options.batch,), generator=generator)
        # scenes and icons are as good mirrored: twice the pictures
        mirrored = torch.rand(options.batch, generator=generator) < 0.5
        batch = images[picked]
        batch[mirrored] = batch[mirrored].flip(2)
        # drawn here, so that a resumed training sees the same noise
        noise = torch.randn(options.batch, CHANNELS, SIDE, SIDE, generator=generator)
        return batch, noise

    def loss(batch, noise):
        x = vae_pixels(batch)
        latent = vae.encode(x).latent_dist
        decoded = vae.decode(latent.mean + latent.std * noise).sample
        terms = latent.mean.float() ** 2 + latent.var.float() - 1 - latent.logvar.float()
        kl = 0.5 * terms.mean()
        return (decoded.float() - x).abs().mean() + KL_WEIGHT * kl

    result = train_network("vae", vae, draw_batch, loss, options, folder, seconds)
    # latents of unit standard deviation, as in Stable Diffusion
    sample = pictures[:: max(1, len(pictures) // 2048)]
    vae.register_to_config(scaling_factor=round(1 / float(encode(vae, sample).std()), 4))
    return result


@torch.no_grad()
def encode(vae: AutoencoderKL, images: np.ndarray, batch: int = 32) -> torch.Tensor:
    """Return the posteriors' means, unscaled, fp32 [n, 16, 16, 16]."""
    parts = []
    with autocast(vae.device):
        for start in range(0, len(images), batch):
            x = vae_pixels(images[start : start + batch]).to(vae.device)
            parts.append(vae.encode(x).latent_dist.mean.float().cpu())
    return torch.cat(parts)


@torch.no_grad()
def reconstruction_psnr(vae: AutoencoderKL, images: np.ndarray, batch: int = 25) -> torch.Tensor:
    """Return the PSNR in dB of each picture against its reconstruction, both 8-bit, fp32 [n]."""
    values = []
    for start in range(0, len(images), batch):
        x = vae_pixels(images[start : start + batch])
        decoded = vae.decode(vae.encode(x.to(vae.device)).latent_dist.mean).sample.cpu()
        errors = (_to_8_bit(x) - _to_8_bit(decoded)).square().mean((1, 2, 3))
        # a picture without any error, of one colour, would be infinite
        values.append(10 * torch.log10(255**2 / errors.clamp(min=1e-3)))
    return torch.cat(values)


def _to_8_bit(x: torch.Tensor) -> torch.Tensor:
    return ((x.clamp(-1, 1) + 1) * 127.5).round()
