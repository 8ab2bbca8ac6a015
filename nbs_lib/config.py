"""The parameters of the notebooks: the only home of their defaults and of their checks.

Each notebook's `parameters` cell repeats the fields of its dataclass; a test holds them together.
"""

from dataclasses import dataclass, field

from .parameters import between, one_of, refuse, said

REFERENCE_PROMPTS = [
    "A boy is watching TV",
    "A photo of a person dancing in the rain",
    "A photo of a boy jumping over a fence",
    "A photo of a boy is kicking a ball",
    "A beach with a lot of waves on it",
    "A road that is going down a hill",
    "3d rendering of 5 tennis balls on top of a cake",
    "A person holding a drink of soda",
    "A person is squeezing a lemon",
    "A person holding a cat",
]
"""The prompts of the reference comparison, in DeepSpeedExamples' `training/stable_diffusion`."""


@dataclass(frozen=True)
class Prepare:
    """Parameters of `1_prepare.ipynb`: images and captions into a cache of latents and text embeddings."""

    run: str = "outputs/demo"
    """Folder of the run, relative to the project."""
    base: str = "embedded"
    """The base: `embedded`, a folder in diffusers' layout, or a hub id."""
    source: str = "picturebook"
    """Where examples come from: `picturebook`, or a folder of images with captions."""
    count: int = 768
    """Examples at most; 0 takes every image of a folder."""
    resolution: int = 64
    """Pixels a side; images are resized and cropped in the middle to a square."""
    batch_size: int = 64
    """Images encoded at once."""
    seed: int = 0
    """Seed of the picture-book's scenes and wordings."""

    def __post_init__(self):
        said(self, "run", "a folder")
        said(self, "base", "embedded, a folder or a hub id")
        said(self, "source", "picturebook, or a folder of images")
        between(self, "count", 1 if self.source == "picturebook" else 0, 10_000_000)
        between(self, "resolution", 8, 4096)
        if self.resolution % 8:
            refuse("resolution", self.resolution, "a multiple of 8")
        between(self, "batch_size", 1, 4096)
        between(self, "seed", 0, 2**31 - 1)


@dataclass(frozen=True)
class Train:
    """Parameters of `2_train.ipynb`: guidance distilled into a LoRA, on DeepSpeed."""

    run: str = "outputs/demo"
    """Folder of the run, relative to the project."""
    guidance: float = 3.0
    """Guidance scale w of the teacher: eps_uncond + w (eps_cond − eps_uncond)."""
    rank: int = 16
    """Rank of the LoRA."""
    alpha: float = 16.0
    """Strength of the LoRA: its update is scaled by alpha / rank."""
    steps: int = 300
    """Optimizer steps."""
    batch_size: int = 8
    """Examples a step and process."""
    lr: float = 1e-3
    """Highest learning rate; ten steps lead up to it, a cosine down to a tenth of it."""
    clip: float = 1.0
    """Largest norm of the gradient; a larger one is scaled down to it."""
    precision: str = "bf16"
    """Arithmetic of the UNet's passes, fp32 or bf16; the adapter is fp32 in both."""
    zero_stage: int = 2
    """DeepSpeed's ZeRO stage, 0 to 2."""
    processes: int = 0
    """Processes to train with; 0 is one for each GPU, or 2 on a machine without."""
    checkpoint_every: int = 100
    """Steps from one checkpoint to the next."""
    log_every: int = 5
    """Steps from one line of metrics.jsonl to the next."""
    seed: int = 0
    """Seed of the adapter's first weights, the order of examples, the noise and the timesteps."""

    def __post_init__(self):
        said(self, "run", "a folder")
        between(self, "guidance", 1.0, 100.0)
        between(self, "rank", 1, 1024)
        between(self, "alpha", 0.001, 4096.0)
        between(self, "steps", 1, 10_000_000)
        between(self, "batch_size", 1, 4096)
        between(self, "lr", 1e-8, 1.0)
        between(self, "clip", 1e-6, 1e6)
        one_of(self, "precision", ("fp32", "bf16"))
        one_of(self, "zero_stage", (0, 1, 2))
        between(self, "processes", 0, 64)
        between(self, "checkpoint_every", 1, 10_000_000)
        between(self, "log_every", 1, 10_000_000)
        between(self, "seed", 0, 2**31 - 1)


@dataclass(frozen=True)
class Compare:
    """Parameters of `3_compare.ipynb`: base and tuned from the same noise, looked at and measured."""

    run: str = "outputs/demo"
    """Folder of the run, relative to the project."""
    prompts: list[str] = field(default_factory=lambda: list(REFERENCE_PROMPTS))
    """Prompts of the pictures."""
    seeds: list[int] = field(default_factory=lambda: [0])
    """Seeds of the pictures' noise; each prompt is drawn once for each."""
    steps: int = 25
    """Sampling steps (DDIM)."""
    adapter_scale: float = 1.0
    """How strongly the adapter is applied."""
    captions: int = 100
    """Held-out captions of the picture-book that the rates are measured on; 0 leaves them out."""
    batch_size: int = 20
    """Pictures sampled at once."""

    def __post_init__(self):
        said(self, "run", "a folder")
        if not self.prompts or not all(prompt.strip() for prompt in self.prompts):
            refuse("prompts", self.prompts, "one prompt or more, none of them empty")
        if not self.seeds or not all(0 <= seed < 2**31 for seed in self.seeds):
            refuse("seeds", self.seeds, "one whole number or more, from 0 to 2147483647")
        between(self, "steps", 1, 1000)
        between(self, "adapter_scale", -10.0, 10.0)
        between(self, "captions", 0, 100_000)
        between(self, "batch_size", 1, 4096)


@dataclass(frozen=True)
class Play:
    """Parameters of `playground.ipynb`: what its controls say when it opens."""

    run: str = "outputs/demo"
    """Folder of the run, relative to the project."""
    prompt: str = "A person in a red shirt holding a black cat on the left"
    """What the first picture shows."""
    seed: int = 0
    """Seed of the noise that both start from."""
    steps: int = 25
    """Sampling steps (DDIM)."""
    guidance: float = 0.0
    """Guidance scale of the base; 0 is the one that the adapter was trained for."""
    adapter_scale: float = 1.0
    """How strongly the adapter is applied."""

    def __post_init__(self):
        said(self, "run", "a folder")
        said(self, "prompt", "words")
        between(self, "seed", 0, 2**31 - 1)
        between(self, "steps", 1, 100)
        if self.guidance:
            between(self, "guidance", 1.0, 20.0)
        between(self, "adapter_scale", -1.0, 3.0)


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
    unet_steps: int = 6000
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


STAGES: dict[str, type] = {"prepare": Prepare, "train": Train, "compare": Compare}
"""The three stages in their order, and the dataclass of each."""
