"""Parameters of `picturebook.ipynb`."""

from typing import Literal

from .fields import group
from .stage import Stage, parameters

result = group("Base")
training = group("Training")
# the folder of each family that `folder` leaves open
FOLDERS = {"unet": "outputs/base", "flow": "outputs/flow-base"}


@parameters
class MakeBase(Stage):
    """Parameters of `picturebook.ipynb`: the embedded bases, made from nothing."""

    family: Literal["unet", "flow"] = result(
        "unet",
        "Family of the base. "
        "A unet is a Stable Diffusion whose networks are all trained. "
        "A flow is a small Stable Diffusion 3 with the VAE and the CLIP of a finished unet.",
    )
    folder: str = result(
        "",
        "Folder of the base, relative to the project. "
        "Empty is outputs/base, of a flow outputs/flow-base. "
        "Training states are kept in it under scratch/.",
        allowed="a folder or nothing",
    )
    base: str = result(
        "embedded",
        "Base whose VAE, CLIP and tokenizer a flow takes: embedded, or a folder.",
        pattern=r"\S",
        allowed="embedded or a folder",
    )
    packages: str = result(
        "outputs/icons",
        "Folder of the npm packages with icons and words. An error says how to install them.",
        pattern=r"\S",
        allowed="a folder",
    )
    hours: float = training(
        4.0,
        "Hours of training, all networks together. "
        "Each has its share, and its learning rate falls with the steps or with the time, "
        "whichever ends first.",
        gt=0,
        le=1000,
    )
    # two batches of the CLIP at least, of 6 groups each
    groups: int = training(
        6000, "Groups of eight scenes that differ in one attribute.", ge=12, le=1_000_000
    )
    pictures: int = training(
        16_000, "Scenes, icons and textures that the VAE is trained on.", ge=32, le=1_000_000
    )
    vae_steps: int = training(
        4000, "Optimizer steps of the VAE, of 8 pictures each.", ge=1, le=10_000_000
    )
    clip_steps: int = training(
        3600, "Optimizer steps of the CLIP, of 64 pairs each.", ge=1, le=10_000_000
    )
    unet_steps: int = training(
        3000,
        "Optimizer steps of the UNet that predict noise, of 32 latents each.",
        ge=1,
        le=10_000_000,
    )
    velocity_steps: int = training(
        2000,
        "Optimizer steps of the UNet that predict velocity, after those.",
        ge=1,
        le=10_000_000,
    )
    flow_steps: int = training(
        8000,
        "Optimizer steps of the transformer of a flow, of 32 latents each.",
        ge=1,
        le=10_000_000,
    )
    captions: int = result(500, "Held-out captions that the base is measured on.", ge=1, le=5000)
    seed: int = result(
        0, "Seed of the scenes, the first weights and the batches.", ge=0, le=2**31 - 1
    )

    @property
    def result_folder(self) -> str:
        """Folder of the base, relative to the project."""
        return self.folder.strip() or FOLDERS[self.family]
