"""The training of the embedded base from nothing: tokenizer, CLIP, VAE and UNet.

clip      the tokenizer and the CLIP
vae       the VAE
unet      the UNet
fit       one training loop for the three networks
assemble  the trained networks as one folder
measure   the base's quality, and its card
look      figures for the notebook
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from ...config import MakeBase
from ..dataset import PictureBook, draw_grouped_book
from ..words import caption_words, write_words
from .assemble import assemble
from .clip import new_clip, train_clip, train_tokenizer
from .fit import Fit
from .measure import measure_base
from .unet import new_unet, train_unet
from .vae import encode, new_vae, train_vae

__all__ = ["make_base", "measure_base"]


def make_base(config: MakeBase, folder: Path) -> dict:
    """Train the three networks in turn and write the base to `folder`.

    `folder/scratch` holds their states and losses, so that a call after an interruption resumes.

    Returns the cost of each network by its name: steps, samples, seconds, loss.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    scratch = folder / "scratch"
    seed = config.seed
    book = draw_grouped_book(config.groups, seed)
    tokenizer = train_tokenizer(seed)
    vae = _seeded(new_vae, seed).to(device)
    clip = _seeded(lambda: new_clip(tokenizer), seed).to(device)
    unet = _seeded(new_unet, seed).to(device)
    vae_cost = train_vae(vae, book, Fit(config.vae_steps, 32, 2e-3, seed=seed), scratch)
    # 64 examples are 8 groups of near misses
    clip_fit = Fit(config.clip_steps, 64, 1e-3, seed=seed)
    clip_cost = train_clip(clip, tokenizer, book, clip_fit, scratch)
    # once, because the VAE is finished and every step would encode again
    latents = scaled_latents(vae, book)
    unet_fit = Fit(config.unet_steps, 32, 1e-3, seed=seed)
    unet_cost = train_unet(unet, clip.text_model, tokenizer, book, latents, unet_fit, scratch)
    assemble(folder, tokenizer, clip, vae, unet)
    write_words(folder, caption_words())
    costs = {"vae": vae_cost, "clip": clip_cost, "unet": unet_cost}
    return {"parameters": asdict(config), "book": len(book), "networks": costs}


def scaled_latents(vae, book: PictureBook) -> torch.Tensor:
    """Return the book's latents in the UNet's scale, [len(book), 4, 16, 16]."""
    return encode(vae, book.images) * vae.config.scaling_factor


def _seeded(new: Callable[[], torch.nn.Module], seed: int) -> torch.nn.Module:
    # the libraries draw first weights from the global generator, which stays as it is
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return new()
