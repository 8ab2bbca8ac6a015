"""The UNet of the base: noise prediction on the book's latents, with dropped captions."""

from pathlib import Path
from random import Random

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from transformers import CLIPTextModel, CLIPTokenizer

from ...diffusion import weight_by_snr
from ..captions import draw_caption
from ..dataset import PictureBook
from .clip import TOWER_WIDTH, tokens
from .fit import Fit, train_network

SNR_LIMIT = 5.0  # gamma of arXiv 2303.09556
CAPTION_DROPOUT = 0.1  # share of examples trained on the empty prompt (arXiv 2207.12598)


def new_unet(channels: tuple[int, ...] = (64, 128)) -> UNet2DConditionModel:
    """Return an untrained UNet."""
    blocks = len(channels)
    return UNet2DConditionModel(
        sample_size=16,
        layers_per_block=1,
        block_out_channels=channels,
        down_block_types=["CrossAttnDownBlock2D"] * blocks,
        up_block_types=["CrossAttnUpBlock2D"] * blocks,
        cross_attention_dim=TOWER_WIDTH,
        attention_head_dim=tuple(width // 32 for width in channels),
        norm_num_groups=16,
    )


def noise_schedule() -> DDIMScheduler:
    """Return Stable Diffusion's noise schedule."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def train_unet(
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    book: PictureBook,
    latents: torch.Tensor,
    options: Fit,
    folder: Path,
) -> dict:
    """Train the UNet by the denoising loss with min-SNR weights.

    latents: scaled, [len(book), 4, 16, 16]

    Source: arXiv 2006.11239 (the loss), arXiv 2303.09556 (the weights).
    """
    unet.to(memory_format=torch.channels_last)
    # plain products: a quarter faster on a CPU at this size
    unet.set_attn_processor(AttnProcessor())
    schedule = noise_schedule()
    alphas = schedule.alphas_cumprod
    # a picture's content is decided at high noise; without weights the many timesteps with little
    # noise would dominate
    weights = weight_by_snr(alphas / (1 - alphas), SNR_LIMIT, "epsilon")
    # it is trained with CLIP, and the UNet adapts to it
    text_encoder.requires_grad_(False)

    def draw_batch(generator):
        picked = torch.randint(len(book), (options.batch,), generator=generator)
        rng = Random(int(torch.randint(2**31, (1,), generator=generator)))
        captions = [_text_or_empty(book.scenes[i], rng) for i in picked]
        t = torch.randint(1000, (options.batch,), generator=generator)
        noise = torch.randn(options.batch, 4, 16, 16, generator=generator)
        noised = schedule.add_noise(latents[picked], noise, t)
        ids = tokens(tokenizer, captions).to(text_encoder.device)
        with torch.no_grad():
            context = text_encoder(ids).last_hidden_state.float()
        return noised.contiguous(memory_format=torch.channels_last), t, context, noise

    def loss(noised, t, context, noise):
        prediction = unet(noised, t, context, return_dict=False)[0].float()
        # one error for each picture, because each has its own timestep
        errors = (prediction - noise).square().mean((1, 2, 3))
        return (errors * weights.to(t.device)[t]).mean()

    return train_network("unet", unet, draw_batch, loss, options, folder)


def _text_or_empty(scene, rng: Random) -> str:
    if rng.random() < CAPTION_DROPOUT:
        return ""
    return draw_caption(scene, rng, complete=0.7).text
