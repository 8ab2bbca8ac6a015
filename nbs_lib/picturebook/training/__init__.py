"""How the embedded base is made from nothing: tokenizer, CLIP, VAE and UNet, trained on the picture-book."""

from dataclasses import asdict
from pathlib import Path

import torch

from ...config import MakeBase
from ..dataset import PictureBook, draw_grouped_book
from .assemble import assemble
from .clip import new_clip, train_clip, train_tokenizer
from .fit import Fit
from .measure import measure_base
from .unet import new_unet, train_unet
from .vae import encode, new_vae, train_vae

__all__ = ["make_base", "measure_base"]


def make_base(config: MakeBase, folder: Path) -> dict:
    """Train the three networks in turn and write the base to `folder`.

    `folder/scratch` keeps their states and loss curves, so that a call after an interruption goes on from there.
    Returns what was spent on each, by name: steps, samples, seconds, loss.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    scratch = folder / "scratch"
    book = draw_grouped_book(config.groups, config.seed)
    tokenizer = train_tokenizer(config.seed)
    vae, clip, unet = (
        _seeded(new, config.seed).to(device)
        for new in (new_vae, lambda: new_clip(tokenizer), new_unet)
    )
    spent = {
        "vae": train_vae(vae, book, Fit(config.vae_steps, 32, 2e-3, seed=config.seed), scratch),
        "clip": train_clip(
            clip, tokenizer, book, Fit(config.clip_steps, 64, 1e-3, seed=config.seed), scratch
        ),
    }
    latents = scaled_latents(vae, book)
    how = Fit(config.unet_steps, 32, 1e-3, seed=config.seed)
    spent["unet"] = train_unet(unet, clip.text_model, tokenizer, book, latents, how, scratch)
    assemble(folder, tokenizer, clip, vae, unet)
    return {"parameters": asdict(config), "book": len(book), "networks": spent}


def scaled_latents(vae, book: PictureBook) -> torch.Tensor:
    """The book in the space that the UNet works in: [len(book), 4, 16, 16]."""
    return encode(vae, book.images) * vae.config.scaling_factor


def _seeded(new, seed: int):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return new()
