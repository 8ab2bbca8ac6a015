"""The UNet of the base, trained on the book's latents in two phases.

The first phase predicts the noise, and learns the details. It cannot learn the layout well: the
mean of a latent's channel over the picture has hundreds of times the variance of the noise's, so
at the last timestep the layout is still to be read, where a sampling begins with noise alone
(arXiv 2305.08891). The second phase goes on with the same weights on a schedule that ends in more
noise, and predicts the velocity, whose loss counts the noisiest timesteps as much as others. From
nothing, the second phase alone leaves faces blotched.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from transformers import CLIPTextModel, CLIPTokenizer

from ...diffusion import weight_by_snr
from ..captions import Scene, draw_caption
from .clip import TOWER_WIDTH
from .loop.fit import Fit, train_network
from .loop.state import weights_hash
from .pictures.stored_book import StoredBook
from .tokenizer import tokens
from .vae import CHANNELS, SIDE

SNR_LIMIT = 5.0  # gamma of arXiv 2303.09556
VELOCITY_LIMIT = 20.0  # times sigma²: without it, the last rest of noise would count as much
CAPTION_DROPOUT = 0.1  # share of examples trained on the empty prompt (arXiv 2207.12598)


@dataclass(frozen=True)
class Phase:
    """A part of the training: the prediction, the noise schedule, and the weights of timesteps."""

    name: str
    prediction: str  # epsilon or v_prediction, as diffusers names them
    beta_end: float
    weights: Callable[[torch.Tensor], torch.Tensor]  # of alphas_cumprod
    # Share of captions with one value wrong: what a single pass gets wrong then, guidance corrects.
    wrong_captions: float


def _min_snr(alphas: torch.Tensor) -> torch.Tensor:
    # a picture's content is decided at high noise; without weights the many timesteps with little
    # noise would dominate
    return weight_by_snr(alphas / (1 - alphas), SNR_LIMIT, "epsilon")


def _capped(alphas: torch.Tensor) -> torch.Tensor:
    return (VELOCITY_LIMIT * (1 - alphas)).clamp(max=1)


DETAILS = Phase("unet", "epsilon", 0.012, _min_snr, wrong_captions=0.07)
LAYOUT = Phase("unet-velocity", "v_prediction", 0.02, _capped, wrong_captions=0.2)


def new_unet(channels: tuple[int, ...] = (64, 128)) -> UNet2DConditionModel:
    """Return an untrained UNet."""
    blocks = len(channels)
    return UNet2DConditionModel(
        sample_size=SIDE,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        layers_per_block=1,
        block_out_channels=channels,
        down_block_types=["CrossAttnDownBlock2D"] * blocks,
        up_block_types=["CrossAttnUpBlock2D"] * blocks,
        cross_attention_dim=TOWER_WIDTH,
        attention_head_dim=tuple(width // 32 for width in channels),
        norm_num_groups=16,
    )


def noise_schedule(phase: Phase = LAYOUT) -> DDIMScheduler:
    """Return a phase's noise schedule: Stable Diffusion's, up to where it ends."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=phase.beta_end,
        beta_schedule="scaled_linear",
        prediction_type=phase.prediction,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def train_unet(
    unet: UNet2DConditionModel,
    phase: Phase,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    book: StoredBook,
    latents: torch.Tensor,
    options: Fit,
    folder: Path,
    seconds: float = math.inf,
    inputs: tuple[str, ...] = (),
) -> dict:
    """Train the UNet for one phase by the denoising loss.

    latents: scaled, [len(book), 16, 16, 16]
    inputs: hashes of the networks before it, besides the text encoder

    Source: arXiv 2006.11239 (the loss), arXiv 2303.09556 (the weights of the first phase),
    arXiv 2202.00512 (the velocity).
    """
    unet.to(memory_format=torch.channels_last)
    # plain products: a quarter faster on a CPU at this size
    unet.set_attn_processor(AttnProcessor())
    schedule = noise_schedule(phase)
    weights = phase.weights(schedule.alphas_cumprod)
    # it is trained with CLIP, and the UNet adapts to it
    text_encoder.requires_grad_(False)

    def draw_batch(generator):
        picked = torch.randint(len(book), (options.batch,), generator=generator)
        rng = Random(int(torch.randint(2**31, (1,), generator=generator)))
        captions = [training_caption(book.scenes[i], rng, phase.wrong_captions) for i in picked]
        # uniform: the weights say what counts
        t = torch.randint(1000, (options.batch,), generator=generator)
        noise = torch.randn(options.batch, CHANNELS, SIDE, SIDE, generator=generator)
        return latents[picked].float(), tokens(tokenizer, captions), t, noise

    def loss(clean, ids, t, noise):
        with torch.no_grad():
            context = text_encoder(ids).last_hidden_state.float()
        noised = schedule.add_noise(clean, noise, t).contiguous(memory_format=torch.channels_last)
        prediction = unet(noised, t, context, return_dict=False)[0].float()
        target = noise
        if phase.prediction == "v_prediction":
            target = schedule.get_velocity(clean, noise, t)
        # one error for each picture, because each has its own timestep
        errors = (prediction - target).square().mean((1, 2, 3))
        return (errors * weights.to(t.device)[t]).mean()

    before = (weights_hash(text_encoder), *inputs)
    return train_network(phase.name, unet, draw_batch, loss, options, folder, seconds, before)


def training_caption(scene: Scene, rng: Random, wrong: float) -> str:
    """Return a random caption of a scene: at times none, at times one with a wrong value.

    wrong: share of the latter
    """
    if rng.random() < CAPTION_DROPOUT:
        return ""
    caption = draw_caption(scene, rng, complete=0.7)
    misses = caption.near_misses()
    if misses and rng.random() < wrong:
        return rng.choice(misses).text
    return caption.text
