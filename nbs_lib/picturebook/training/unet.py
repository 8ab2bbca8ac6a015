"""The UNet of the base: noise prediction on the latents of the book, with captions dropped for guidance."""

from pathlib import Path
from random import Random

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from transformers import CLIPTextModel, CLIPTokenizer

from ..captions import draw_caption
from ..dataset import PictureBook
from .clip import WIDTH, tokens
from .fit import Fit, fit

SNR_LIMIT = 5.0  # gamma of arXiv 2303.09556
CAPTION_DROPOUT = 0.1  # share of examples trained on the empty prompt (arXiv 2207.12598)


def new_unet(channels: tuple[int, ...] = (64, 128)) -> UNet2DConditionModel:
    blocks = len(channels)
    return UNet2DConditionModel(
        sample_size=16,
        layers_per_block=1,
        block_out_channels=channels,
        down_block_types=["CrossAttnDownBlock2D"] * blocks,
        up_block_types=["CrossAttnUpBlock2D"] * blocks,
        cross_attention_dim=WIDTH,
        attention_head_dim=tuple(width // 32 for width in channels),
        norm_num_groups=16,
    )


def noise_schedule() -> DDIMScheduler:
    """Stable Diffusion's schedule."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def timestep_weights(alphas_cumprod: torch.Tensor) -> torch.Tensor:
    """min(SNR, 5) / SNR for each timestep, [T]: the weights of a loss in eps. Source: arXiv 2303.09556, sec. 3.4."""
    snr = alphas_cumprod / (1 - alphas_cumprod)
    return snr.clamp(max=SNR_LIMIT) / snr


def train_unet(
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    book: PictureBook,
    latents: torch.Tensor,
    how: Fit,
    folder: Path,
) -> dict:
    """The denoising loss (arXiv 2006.11239) with min-SNR weights (arXiv 2303.09556): what a picture shows is settled where
    there is much noise, and the many steps with little would outweigh it.

    latents: scaled, [len(book), 4, 16, 16].
    """
    unet.to(memory_format=torch.channels_last)
    unet.set_attn_processor(
        AttnProcessor()
    )  # plain products: a quarter faster on a CPU at this size
    schedule = noise_schedule()
    weights = timestep_weights(schedule.alphas_cumprod)
    text_encoder.requires_grad_(False)

    def draw_batch(generator):
        picked = torch.randint(len(book), (how.batch,), generator=generator)
        rng = Random(int(torch.randint(2**31, (1,), generator=generator)))
        captions = [
            ""
            if rng.random() < CAPTION_DROPOUT
            else draw_caption(book.scenes[i], rng, complete=0.7).text
            for i in picked
        ]
        t = torch.randint(1000, (how.batch,), generator=generator)
        noise = torch.randn(how.batch, 4, 16, 16, generator=generator)
        noised = schedule.add_noise(latents[picked], noise, t).contiguous(
            memory_format=torch.channels_last
        )
        with torch.no_grad():
            context = text_encoder(
                tokens(tokenizer, captions).to(text_encoder.device)
            ).last_hidden_state.float()
        return noised, t, context, noise

    def loss(noised, t, context, noise):
        errors = (
            (unet(noised, t, context, return_dict=False)[0].float() - noise)
            .square()
            .mean((1, 2, 3))
        )
        return (errors * weights.to(t.device)[t]).mean()

    return fit("unet", unet, draw_batch, loss, how, folder)
