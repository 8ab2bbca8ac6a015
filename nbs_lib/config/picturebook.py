"""Parameters of `picturebook.ipynb`."""

from .fields import group
from .stage import Stage, parameters

base = group("Base")
training = group("Training")


@parameters
class MakeBase(Stage):
    """Parameters of `picturebook.ipynb`: the embedded base, made from nothing."""

    folder: str = base(
        "outputs/base",
        "Folder of the base, relative to the project. "
        "Training states are kept in it under scratch/.",
        pattern=r"\S",
        allowed="a folder",
    )
    # two batches of the CLIP at least, of 8 groups each
    groups: int = training(
        6000, "Groups of eight scenes that differ in one attribute.", ge=16, le=1_000_000
    )
    vae_steps: int = training(
        4200, "Optimizer steps of the VAE, of 32 pictures each.", ge=1, le=10_000_000
    )
    clip_steps: int = training(
        1200, "Optimizer steps of the CLIP, of 64 pairs each.", ge=1, le=10_000_000
    )
    unet_steps: int = training(
        3000, "Optimizer steps of the UNet, of 32 latents each.", ge=1, le=10_000_000
    )
    captions: int = base(500, "Held-out captions that the base is measured on.", ge=1, le=5000)
    seed: int = base(
        0, "Seed of the scenes, the first weights and the batches.", ge=0, le=2**31 - 1
    )
