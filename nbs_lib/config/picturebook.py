"""Parameters of `picturebook.ipynb`."""

from dataclasses import dataclass

from .validation import between, said


@dataclass(frozen=True)
class MakeBase:
    """Parameters of `picturebook.ipynb`: the embedded base, made from nothing."""

    folder: str = "outputs/base"
    """Folder that the base is written to, relative to the project; training states are kept in it under `scratch/`."""
    groups: int = 6000
    """Training scenes, in groups of eight that differ in one attribute."""
    vae_steps: int = 4200
    """Optimizer steps of the VAE, of 32 pictures each."""
    clip_steps: int = 1200
    """Optimizer steps of the CLIP, of 64 pairs each."""
    unet_steps: int = 3000
    """Optimizer steps of the UNet, of 32 latents each."""
    captions: int = 500
    """Held-out captions that the base is measured on."""
    seed: int = 0
    """Seed of the book, the first weights and the batches."""

    def __post_init__(self):
        said(self, "folder", "a folder")
        between(self, "groups", 16, 1_000_000)
        for name in ("vae_steps", "clip_steps", "unet_steps"):
            between(self, name, 1, 10_000_000)
        between(self, "captions", 1, 5000)
        between(self, "seed", 0, 2**31 - 1)
