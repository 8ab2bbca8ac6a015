"""The VAE of the base: 64 × 64 × 3 pictures to 16 × 16 × 4 latents and back."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL

from ...images.convert import to_tensor
from ..dataset import PictureBook
from .fit import Fit, train_network

KL_WEIGHT = 1e-4  # keeps the latents near a unit normal without blurring


def new_vae(channels: tuple[int, ...] = (16, 32, 64)) -> AutoencoderKL:
    """Return an untrained VAE."""
    blocks = len(channels)
    vae = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * blocks,
        up_block_types=["UpDecoderBlock2D"] * blocks,
        block_out_channels=channels,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
    )
    with torch.no_grad():
        # log variance: noise of unit size at the start would drown the latents
        vae.quant_conv.bias[4:] = -6.0
    return vae


def vae_pixels(images) -> torch.Tensor:
    """Return pictures uint8 [n, h, w, 3] as fp32 [n, 3, h, w] in [-1, 1], channels last."""
    return to_tensor(images).contiguous(memory_format=torch.channels_last)


def train_vae(vae: AutoencoderKL, book: PictureBook, options: Fit, folder: Path) -> dict:
    """Train the VAE by the absolute error and a slight KL term, and set its scaling factor.

    Source: arXiv 2112.10752.
    """
    vae.to(memory_format=torch.channels_last)
    images = torch.from_numpy(book.images)

    def draw_batch(generator):
        picked = torch.randint(len(book), (options.batch,), generator=generator)
        # drawn here, so that a resumed training sees the same noise
        noise = torch.randn(options.batch, 4, 16, 16, generator=generator)
        return vae_pixels(images[picked]), noise

    def loss(x, noise):
        latent = vae.encode(x).latent_dist
        decoded = vae.decode(latent.mean + latent.std * noise).sample
        terms = latent.mean.float() ** 2 + latent.var.float() - 1 - latent.logvar.float()
        kl = 0.5 * terms.mean()
        return (decoded.float() - x).abs().mean() + KL_WEIGHT * kl

    result = train_network("vae", vae, draw_batch, loss, options, folder)
    # latents of unit standard deviation, as in Stable Diffusion
    deviation = float(encode(vae, book.images[:4096]).std())
    vae.register_to_config(scaling_factor=round(1 / deviation, 4))
    return result


@torch.no_grad()
def encode(vae: AutoencoderKL, images, batch: int = 128) -> torch.Tensor:
    """Return the posteriors' means, unscaled, fp32 [n, 4, 16, 16]."""
    parts = []
    with torch.autocast(vae.device.type, torch.bfloat16):
        for start in range(0, len(images), batch):
            x = vae_pixels(images[start : start + batch]).to(vae.device)
            parts.append(vae.encode(x).latent_dist.mean.float().cpu())
    return torch.cat(parts)


@torch.no_grad()
def reconstruction_psnr(vae: AutoencoderKL, book: PictureBook, batch: int = 100) -> float:
    """Return the mean PSNR in dB of pictures against their reconstructions, both 8-bit."""
    values = []
    for start in range(0, len(book), batch):
        x = vae_pixels(book.images[start : start + batch])
        decoded = vae.decode(vae.encode(x.to(vae.device)).latent_dist.mean).sample.cpu()
        errors = (_to_8_bit(x) - _to_8_bit(decoded)).square().mean((1, 2, 3))
        values.append(10 * torch.log10(255**2 / errors))
    return float(torch.cat(values).mean())


def _to_8_bit(x: torch.Tensor) -> torch.Tensor:
    return ((x.clamp(-1, 1) + 1) * 127.5).round()
