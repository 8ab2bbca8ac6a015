"""The base from nothing: its networks, one after another."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from transformers import CLIPTokenizer

from ...config import MakeBase
from ..words import caption_words, write_words
from .assemble import assemble
from .clip import new_clip, train_clip
from .fit import Fit
from .pictures.icons import TRAINED_STYLES, Icon, IconPackages
from .pictures.mixture import stored_mixture
from .pictures.stored_book import StoredBook
from .state import weights_hash
from .tokenizer import everyday_texts, train_tokenizer
from .unet import DETAILS, LAYOUT, new_unet, train_unet
from .vae import new_vae, train_vae

# Shares of the time. The last one is short: it moves what the one before it has learned.
SHARES = {"vae": 0.26, "clip": 0.16, "unet": 0.42, "unet-velocity": 0.16}


class BaseTraining:
    """The training of one base: its pictures, its networks, and the time for each.

    folder: of the base; `scratch` in it holds pictures, states and losses
    """

    def __init__(self, config: MakeBase, folder: Path, packages: IconPackages):
        self.config = config
        self.scratch = folder / "scratch"
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.packages = packages
        self.icons: list[Icon] = packages.icons(TRAINED_STYLES)
        # a moment's work, and the same each time, so it needs no file
        self.tokenizer: CLIPTokenizer = train_tokenizer(everyday_texts(packages, config.seed))
        self.costs: dict[str, dict] = {}

    def fit(self, steps: int, batch: int, lr: float, **options) -> Fit:
        """Return the length and rate of a network's training."""
        return Fit(steps, batch, lr, seed=self.config.seed, **options)

    def seconds(self, name: str) -> float:
        """Return the longest time of a network's training."""
        return SHARES[name] * self.config.hours * 3600

    def new(self, create: Callable[[], torch.nn.Module]) -> torch.nn.Module:
        """Return a network whose first weights depend on the seed alone."""
        # the libraries draw first weights from the global generator, which stays as it is
        with torch.random.fork_rng():
            torch.manual_seed(self.config.seed)
            return create().to(self.device)

    def vae(self) -> torch.nn.Module:
        """Return the trained VAE."""
        vae = self.new(new_vae)
        pictures = stored_mixture(self.scratch, self.icons, self.config.pictures, self.config.seed)
        fit = self.fit(self.config.vae_steps, 16, 2e-3)
        self.costs["vae"] = train_vae(vae, pictures, fit, self.scratch, self.seconds("vae"))
        return vae

    def clip(self, book: StoredBook) -> torch.nn.Module:
        """Return the trained CLIP."""
        clip = self.new(lambda: new_clip(self.tokenizer))
        # 64 examples are 6 groups of near misses and 16 icons
        fit = self.fit(self.config.clip_steps, 64, 1e-3)
        self.costs["clip"] = train_clip(
            clip, self.tokenizer, book, self.icons, fit, self.scratch, self.seconds("clip")
        )
        return clip

    def unet(self, vae, clip, book: StoredBook) -> torch.nn.Module:
        """Return the UNet, trained in two phases."""
        unet = self.new(new_unet)
        # once, because the VAE is finished and every step would encode again
        latents = book.latents(vae)
        details = self.fit(self.config.unet_steps, 32, 1e-3)
        # a short average, because the first weights of this phase predict something else
        layout = self.fit(self.config.velocity_steps, 32, 6e-4, ema=0.995)
        # what a phase rests on, so that no state of other networks is resumed
        inputs = [weights_hash(vae)]
        for phase, fit in ((DETAILS, details), (LAYOUT, layout)):
            self.costs[phase.name] = train_unet(
                unet, phase, clip.text_model, self.tokenizer, book, latents, fit,
                self.scratch, self.seconds(phase.name), tuple(inputs),
            )  # fmt: skip
            # the second one begins where the first one ended
            inputs.append(weights_hash(unet))
        return unet


def make_base(config: MakeBase, folder: Path, packages: IconPackages) -> dict:
    """Train the networks in turn and write the base to `folder`.

    `folder/scratch` holds pictures, states and losses: a call after an interruption resumes.

    Returns what it took: parameters, scenes, licences of the packages, and for each network its
    steps, samples, seconds and loss.

    Errors: MissingPackageError before anything is drawn
    """
    packages.check()
    training = BaseTraining(config, folder, packages)
    vae = training.vae()
    book = StoredBook(training.scratch, config.groups, config.seed)
    clip = training.clip(book)
    unet = training.unet(vae, clip, book)
    assemble(folder, training.tokenizer, clip, vae, unet)
    write_words(folder, caption_words())
    return {
        "parameters": asdict(config),
        "book": len(book),
        "licences": packages.licences(),
        "networks": training.costs,
    }
