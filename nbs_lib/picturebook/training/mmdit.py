"""The transformer of the flow base, trained on the book's latents with a small text encoder.

Its VAE and its CLIP are those of a finished base. Stable Diffusion 3 has a second text encoder:
here one layer, trained together with the transformer, which reads its words almost as they are.

Source: arXiv 2403.03206 (the transformer, the flow on straight paths, the timesteps).
"""

import copy
import math
from pathlib import Path
from random import Random

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from torch.nn.functional import pad
from transformers import CLIPModel, CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from ...flow import flow_velocity, logit_normal_timesteps
from ...models import NoiseSchedule
from ...models.attention import count_equal_tokens
from ...models.stable_diffusion_3 import T5_TOKENS
from .loop.fit import Fit, train_network
from .loop.state import weights_hash
from .pictures.stored_book import StoredBook
from .tokenizer import LENGTH, tokens
from .unet import LAYOUT, training_caption

LAYERS = 6
HEADS = 5
HEAD_WIDTH = 32
# Latents of a token, a side. One would be four times as many tokens and steps as long.
PATCH = 2
LARGEST = 32  # latents a side: pictures of 256 pixels
SECOND_WIDTH = 64  # of the second text encoder
# Noise levels as for nine times as many pixels: the layout, which guidance corrects, is still to
# be read in noise that hides all details.
SHIFT = 3.0
N_TIMESTEPS = 1000
# Share of timesteps drawn evenly: logit-normal ones never come to the noise alone, with which a
# sampling begins.
EVEN_SHARE = 0.1


class FlowNetworks(torch.nn.Module):
    """The networks that are trained together: the transformer and the second text encoder."""

    def __init__(
        self, transformer: SD3Transformer2DModel, text_encoder_2: CLIPTextModelWithProjection
    ):
        super().__init__()
        self.transformer = transformer
        self.text_encoder_2 = text_encoder_2

    def encode(
        self, text_encoder: CLIPTextModelWithProjection, ids: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return texts as the stock pipeline without T5 gives them: context and pooled text.

        text_encoder: the first one, which is frozen
        """
        with torch.no_grad():
            first = text_encoder(ids, output_hidden_states=True)
        outputs = (first, self.text_encoder_2(ids, output_hidden_states=True))
        context = torch.cat([output.hidden_states[-2].float() for output in outputs], dim=-1)
        pooled = torch.cat([output.text_embeds.float() for output in outputs], dim=-1)
        # zeros in the places of T5's tokens, which the stock pipeline has without T5 too
        return pad(context, (0, 0, 0, T5_TOKENS)), pooled


def text_tower(clip: CLIPModel) -> CLIPTextModelWithProjection:
    """Return a CLIP's text tower and its projection, as Stable Diffusion 3 reads them."""
    config = copy.deepcopy(clip.config.text_config)
    # CLIP has it in the settings of both towers
    config.projection_dim = clip.config.projection_dim
    tower = CLIPTextModelWithProjection(config)
    # both towers are in one file, and these have the names that the single tower gives them
    weights = {name: value for name, value in clip.state_dict().items() if name.startswith("text_")}
    tower.load_state_dict(weights)
    return tower.requires_grad_(False).eval()


def new_networks(
    text_encoder: CLIPTextModelWithProjection,
    latents: tuple[int, int, int],
    layers: int = LAYERS,
) -> FlowNetworks:
    """Return untrained networks.

    latents: shape of a picture's, channels first
    """
    first = text_encoder.config
    channels, side, _ = latents
    transformer = SD3Transformer2DModel(
        sample_size=side,
        patch_size=PATCH,
        in_channels=channels,
        out_channels=channels,
        num_layers=layers,
        attention_head_dim=HEAD_WIDTH,
        num_attention_heads=HEADS,
        caption_projection_dim=HEADS * HEAD_WIDTH,
        joint_attention_dim=first.hidden_size + SECOND_WIDTH,
        pooled_projection_dim=first.projection_dim + SECOND_WIDTH,
        pos_embed_max_size=max(LARGEST, side) // PATCH,
        # keeps the logits of attention small at a high learning rate
        qk_norm="rms_norm",
    )
    start_as_identity(transformer)
    # a third of the products, and the same gradients
    count_equal_tokens(transformer, LENGTH)
    return FlowNetworks(transformer, CLIPTextModelWithProjection(second_config(first)))


def second_config(first: CLIPTextConfig) -> CLIPTextConfig:
    """Return the settings of the second text encoder: the first one's vocabulary, one layer."""
    return CLIPTextConfig(
        **first.to_dict()
        | {
            "hidden_size": SECOND_WIDTH,
            "intermediate_size": 4 * SECOND_WIDTH,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "projection_dim": SECOND_WIDTH,
        }
    )


def start_as_identity(transformer: SD3Transformer2DModel):
    """Set a transformer's first gates and its output to zero, with which deep ones train faster.

    Source: arXiv 2212.09748, sec. 3.2 (adaLN-Zero).
    """
    layers = [transformer.norm_out.linear, transformer.proj_out]
    for block in transformer.transformer_blocks:
        layers += [block.norm1.linear, block.norm1_context.linear]
    for layer in layers:
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)


def flow_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """Return the flow's noise levels."""
    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=N_TIMESTEPS, shift=SHIFT)


def draw_timesteps(count: int, generator: torch.Generator) -> torch.Tensor:
    """Return timesteps of a batch, int64 [count]: most in the middle, some of them anywhere."""
    drawn = logit_normal_timesteps(torch.randn(count, generator=generator), N_TIMESTEPS)
    anywhere = torch.randint(N_TIMESTEPS, (count,), generator=generator)
    is_even = torch.rand(count, generator=generator) < EVEN_SHARE
    return torch.where(is_even, anywhere, drawn)


def train_transformer(
    networks: FlowNetworks,
    text_encoder: CLIPTextModelWithProjection,
    tokenizer: CLIPTokenizer,
    book: StoredBook,
    latents: torch.Tensor,
    options: Fit,
    folder: Path,
    seconds: float = math.inf,
    inputs: tuple[str, ...] = (),
) -> dict:
    """Train the transformer and the second text encoder by the squared error of the velocity.

    latents: scaled, [len(book), 16, 16, 16]
    inputs: hashes of the networks before it, besides the first text encoder

    Source: arXiv 2403.03206, eq. 13.
    """
    device = next(networks.parameters()).device
    schedule = NoiseSchedule.flow(flow_scheduler().sigmas.flip(0)).to(device)

    def draw_batch(generator):
        picked = torch.randint(len(book), (options.batch,), generator=generator)
        rng = Random(int(torch.randint(2**31, (1,), generator=generator)))
        captions = [training_caption(book.scenes[i], rng, LAYOUT.wrong_captions) for i in picked]
        t = draw_timesteps(options.batch, generator)
        noise = torch.randn(options.batch, *latents.shape[1:], generator=generator)
        return latents[picked].float(), tokens(tokenizer, captions), t, noise

    def loss(clean, ids, t, noise):
        context, pooled = networks.encode(text_encoder, ids)
        alpha, sigma = schedule.levels(t)
        noised = alpha * clean + sigma * noise
        # it reads the noise level in thousandths, as in the stock pipeline
        velocity = networks.transformer(
            noised, context, pooled, schedule.times(t), return_dict=False
        )[0]
        return (velocity.float() - flow_velocity(clean, noise)).square().mean()

    before = (weights_hash(text_encoder), *inputs)
    return train_network("mmdit", networks, draw_batch, loss, options, folder, seconds, before)
