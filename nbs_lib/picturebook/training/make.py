"""The base from nothing: its networks, one after another."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from transformers import CLIPModel, CLIPTextModelWithProjection, CLIPTokenizer

from ...config import MakeBase
from ...files import ROOT
from ...models import BaseError
from ...models.model_folder import load_model
from ...project import EMBEDDED_BASES
from ..words import caption_words, write_words
from .assemble import assemble, assemble_flow
from .clip import new_clip, train_clip
from .loop.fit import Fit
from .loop.state import weights_hash
from .mmdit import new_networks, text_tower, train_transformer
from .pictures.icons import TRAINED_STYLES, Icon, IconPackages
from .pictures.mixture import stored_mixture
from .pictures.stored_book import StoredBook
from .tokenizer import everyday_texts, stored_tokenizer
from .unet import DETAILS, LAYOUT, new_unet, train_unet
from .vae import new_vae, train_vae

# Shares of the time. The last one is short: it moves what the one before it has learned.
SHARES = {"vae": 0.265, "clip": 0.35, "unet": 0.233, "unet-velocity": 0.152}


class Training:
    """The training of a base's networks: the length, the time and the first weights of each.

    folder: of the base; `scratch` in it holds pictures, states and losses
    """

    def __init__(self, config: MakeBase, folder: Path):
        self.config = config
        self.scratch = folder / "scratch"
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
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

    def book(self) -> StoredBook:
        """Return the scenes, drawn once."""
        return StoredBook(self.scratch, self.config.groups, self.config.seed)

    def spent(self, book: StoredBook, licences: dict[str, str]) -> dict:
        """Return what the training took, as `make_base` does."""
        return {
            "parameters": asdict(self.config),
            "book": len(book),
            "licences": licences,
            "networks": self.costs,
        }


class BaseTraining(Training):
    """The training of a base with a UNet, all of its networks from nothing."""

    def __init__(self, config: MakeBase, folder: Path, packages: IconPackages):
        super().__init__(config, folder)
        self.icons: list[Icon] = packages.icons(TRAINED_STYLES)
        self.tokenizer: CLIPTokenizer = stored_tokenizer(
            self.scratch, everyday_texts(packages, config.seed)
        )

    def vae(self) -> torch.nn.Module:
        """Return the trained VAE."""
        vae = self.new(new_vae)
        pictures = stored_mixture(self.scratch, self.icons, self.config.pictures, self.config.seed)
        # a small network of convolutions hardly learns with AdamW alone
        fit = self.fit(self.config.vae_steps, 8, 1.5e-3, matrix_lr=4e-3)
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
        details = self.fit(self.config.unet_steps, 32, 1e-3, matrix_lr=3e-3)
        # a short average, because the first weights of this phase predict something else
        layout = self.fit(self.config.velocity_steps, 32, 6e-4, ema=0.995, matrix_lr=1.8e-3)
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


def make_base(config: MakeBase, folder: Path, packages: IconPackages | None = None) -> dict:
    """Train the networks in turn and write the base to `folder`.

    `folder/scratch` holds pictures, states and losses: a call after an interruption resumes.

    packages: with the icons, which a flow does without

    Returns what it took: parameters, scenes, licences of the packages, and for each network its
    steps, samples, seconds and loss.

    Errors: MissingPackageError before anything is drawn, BaseError if a flow's base lacks networks
    """
    if config.family == "flow":
        return make_flow(config, folder)
    packages.check()
    training = BaseTraining(config, folder, packages)
    vae = training.vae()
    book = training.book()
    clip = training.clip(book)
    unet = training.unet(vae, clip, book)
    assemble(folder, training.tokenizer, clip, vae, unet)
    write_words(folder, caption_words())
    return training.spent(book, packages.licences())


def make_flow(config: MakeBase, folder: Path) -> dict:
    """Train a transformer beside the VAE and the CLIP of a base, and write a base of SD 3."""
    tokenizer, vae, text_encoder = load_start(config.base)
    training = Training(config, folder)
    book = training.book()
    latents = book.latents(vae.to(training.device))
    # a scene's latents may have another size in a base of one's own
    networks = training.new(lambda: new_networks(text_encoder, tuple(latents.shape[1:])))
    training.costs["mmdit"] = train_transformer(
        networks, text_encoder.to(training.device), tokenizer, book, latents,
        training.fit(config.flow_steps, 32, 1e-3), training.scratch, config.hours * 3600,
        (weights_hash(vae),),
    )  # fmt: skip
    assemble_flow(folder, tokenizer, vae, text_encoder, networks)
    write_words(folder, caption_words())
    return training.spent(book, {})


def find_packages(config: MakeBase) -> IconPackages | None:
    """Return the icons' packages; None for a flow. Errors: MissingPackageError."""
    # it trains neither VAE nor CLIP, and the book has no icons
    if config.family == "flow":
        return None
    packages = IconPackages(ROOT / config.packages)
    packages.check()
    return packages


def scoring_clip(config: MakeBase) -> Path:
    """Return the folder of the CLIP that ranks captions: the base's, of a flow its start's."""
    folder = start_folder(config.base) if config.family == "flow" else ROOT / config.result_folder
    return folder / "clip"


def start_folder(name: str) -> Path:
    """Return the folder of the base that a flow starts from. name: embedded, or a folder."""
    # without a check of the whole base, whose UNet it does without
    return EMBEDDED_BASES.get(name) or ROOT / Path(name).expanduser()


def load_start(
    name: str,
) -> tuple[CLIPTokenizer, AutoencoderKL, CLIPTextModelWithProjection]:
    """Return the tokenizer, the VAE and the text tower of CLIP of a base.

    name: embedded, or a folder, of which `vae` and `clip` are read

    Errors: BaseError if one of them is missing
    """
    folder = start_folder(name)
    missing = [part for part in ("vae", "clip") if not (folder / part / "config.json").is_file()]
    if missing:
        raise BaseError(
            f"base {name!r} lacks {' and '.join(missing)}; give embedded or a folder that "
            "`picturebook.ipynb` has written"
        )
    vae = AutoencoderKL.from_pretrained(folder / "vae", use_safetensors=True, dtype=torch.float32)
    tokenizer = CLIPTokenizer.from_pretrained(folder / "clip", local_files_only=True)
    return (
        tokenizer,
        vae.requires_grad_(False).eval(),
        text_tower(load_model(CLIPModel, folder / "clip", attention="sdpa")),
    )
