"""The VAE of the base: 64 × 64 × 3 pictures to 16 × 16 × 4 latents and back."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL

from ...images.convert import to_tensor
from ..dataset import PictureBook
from .fit import Fit, fit

KL_WEIGHT = 1e-4  # keeps the latents near a unit normal without blurring


def new_vae(channels: tuple[int, ...] = (16, 32, 64)) -> AutoencoderKL:
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
        vae.quant_conv.bias[
            4:
        ] = -6.0  # log variance: noise of unit size at the start would drown the latents
    return vae


def vae_pixels(images) -> torch.Tensor:
    """uint8 [n, h, w, 3] to float [n, 3, h, w] in [-1, 1], channels last in memory."""
    return to_tensor(images).contiguous(memory_format=torch.channels_last)


def train_vae(vae: AutoencoderKL, book: PictureBook, how: Fit, folder: Path) -> dict:
    """Absolute error of the reconstruction and a slight KL term (arXiv 2112.10752); sets the scaling factor.

    The scaling factor makes the latents of the book have unit standard deviation, as in Stable Diffusion.
    """
    vae.to(memory_format=torch.channels_last)
    images = torch.from_numpy(book.images)

    def draw_batch(generator):
        picked = torch.randint(len(book), (how.batch,), generator=generator)
        return vae_pixels(images[picked]), torch.randn(how.batch, 4, 16, 16, generator=generator)

    def loss(x, noise):
        latent = vae.encode(x).latent_dist
        back = vae.decode(latent.mean + latent.std * noise).sample
        kl = (
            0.5 * (latent.mean.float() ** 2 + latent.var.float() - 1 - latent.logvar.float()).mean()
        )
        return (back.float() - x).abs().mean() + KL_WEIGHT * kl

    result = fit("vae", vae, draw_batch, loss, how, folder)
    latents = encode(vae, book.images[:4096])
    vae.register_to_config(scaling_factor=round(1 / float(latents.std()), 4))
    return result


@torch.no_grad()
def encode(vae: AutoencoderKL, images, batch: int = 128) -> torch.Tensor:
    """Latent means, unscaled: [n, 4, 16, 16] fp32."""
    device = vae.device
    with torch.autocast(device.type, torch.bfloat16):
        parts = [
            vae.encode(vae_pixels(images[i : i + batch]).to(device)).latent_dist.mean.float().cpu()
            for i in range(0, len(images), batch)
        ]
    return torch.cat(parts)


@torch.no_grad()
def reconstruction_psnr(vae: AutoencoderKL, book: PictureBook, batch: int = 100) -> float:
    """Mean PSNR in dB of each picture against its reconstruction, both 8-bit."""
    values = []
    for i in range(0, len(book), batch):
        x = vae_pixels(book.images[i : i + batch])
        back = vae.decode(vae.encode(x.to(vae.device)).latent_dist.mean).sample.cpu()
        a, b = ((t.clamp(-1, 1) + 1) * 127.5 for t in (x, back))
        values.append(10 * torch.log10(255**2 / (a.round() - b.round()).square().mean((1, 2, 3))))
    return float(torch.cat(values).mean())
