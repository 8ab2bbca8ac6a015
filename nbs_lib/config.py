"""The parameters of the three notebooks: the only home of their defaults and of their checks.

Each notebook's `parameters` cell repeats the fields of its dataclass; a test holds them together. `from_parameters`
is the way in for values from YAML, the command line and papermill, which arrive as text as often as not; a notebook
gives what it was given through `from_notebook`.
"""

import difflib
import math
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any, TypeVar, get_args, get_origin

T = TypeVar("T")

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


class ParameterError(ValueError):
    """A parameter that cannot be used: its name, what was given, what is allowed."""


def _refuse(name: str, given: Any, allowed: str):
    shown = repr(given)
    shown = shown if len(shown) <= 200 else f"{shown[:200]}…"
    raise ParameterError(f"parameter {name}: given {shown}; allowed is {allowed}")


def _between(config: Any, name: str, low: float, high: float):
    value = getattr(config, name)
    if not low <= value <= high:
        _refuse(name, value, f"a number from {low:g} to {high:g}")


def _one_of(config: Any, name: str, allowed: tuple):
    value = getattr(config, name)
    if value not in allowed:
        _refuse(name, value, "one of " + ", ".join(map(str, allowed)))


def _said(config: Any, name: str, what: str):
    if not getattr(config, name).strip():
        _refuse(name, getattr(config, name), what)


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
        _said(self, "run", "a folder")
        _said(self, "base", "embedded, a folder or a hub id")
        _said(self, "source", "picturebook, or a folder of images")
        _between(self, "count", 1 if self.source == "picturebook" else 0, 10_000_000)
        _between(self, "resolution", 8, 4096)
        if self.resolution % 8:
            _refuse("resolution", self.resolution, "a multiple of 8")
        _between(self, "batch_size", 1, 4096)
        _between(self, "seed", 0, 2**31 - 1)


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
        _said(self, "run", "a folder")
        _between(self, "guidance", 1.0, 100.0)
        _between(self, "rank", 1, 1024)
        _between(self, "alpha", 0.001, 4096.0)
        _between(self, "steps", 1, 10_000_000)
        _between(self, "batch_size", 1, 4096)
        _between(self, "lr", 1e-8, 1.0)
        _between(self, "clip", 1e-6, 1e6)
        _one_of(self, "precision", ("fp32", "bf16"))
        _one_of(self, "zero_stage", (0, 1, 2))
        _between(self, "processes", 0, 64)
        _between(self, "checkpoint_every", 1, 10_000_000)
        _between(self, "log_every", 1, 10_000_000)
        _between(self, "seed", 0, 2**31 - 1)


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
        _said(self, "run", "a folder")
        if not self.prompts or not all(prompt.strip() for prompt in self.prompts):
            _refuse("prompts", self.prompts, "one prompt or more, none of them empty")
        if not self.seeds or not all(0 <= seed < 2**31 for seed in self.seeds):
            _refuse("seeds", self.seeds, "one whole number or more, from 0 to 2147483647")
        _between(self, "steps", 1, 1000)
        _between(self, "adapter_scale", -10.0, 10.0)
        _between(self, "captions", 0, 100_000)
        _between(self, "batch_size", 1, 4096)


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
        _said(self, "run", "a folder")
        _said(self, "prompt", "words")
        _between(self, "seed", 0, 2**31 - 1)
        _between(self, "steps", 1, 100)
        if self.guidance:
            _between(self, "guidance", 1.0, 20.0)
        _between(self, "adapter_scale", -1.0, 3.0)


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
        _said(self, "folder", "a folder")
        _between(self, "groups", 16, 1_000_000)
        for name in ("vae_steps", "clip_steps", "unet_steps"):
            _between(self, name, 1, 10_000_000)
        _between(self, "captions", 1, 5000)
        _between(self, "seed", 0, 2**31 - 1)


STAGES: dict[str, type] = {"prepare": Prepare, "train": Train, "compare": Compare}
"""The three stages in their order, and the dataclass of each."""
PLAIN = (bool, int, float, str, list, dict, type(None))
"""What papermill can give a notebook."""
IPYTHON = ("In", "Out")
"""The plain values that IPython itself puts among a notebook's names, beside those with an underscore."""


def from_parameters(cls: type[T], given: dict[str, Any]) -> T:
    """A config from loosely typed values: `1e-4` and `true` mean what people mean, whatever typed them.

    Errors: ParameterError for an unknown name, a wrong type or a value out of range.
    """
    known = {f.name: f.type for f in fields(cls)}
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"; did you mean {near[0]}?" if near else "."
            raise ParameterError(f"parameter {name}: {cls.__name__} has none of that name{hint} It has {', '.join(known)}.")
    return cls(**{name: _as_type(name, value, known[name]) for name, value in given.items()})


def from_notebook(cls: type[T], names: dict[str, Any]) -> T:
    """The config of a notebook from its `globals()`, which papermill writes unknown parameters into as well.

    Errors: ParameterError as of `from_parameters`; above the imports, any plain value is taken for a parameter.
    """
    given = {f.name: names[f.name] for f in fields(cls) if f.name in names}
    for name, value in names.items():  # in the order in which they were bound first
        if value is from_notebook:
            break  # from its imports on, a notebook's names are its own, also when a cell is run a second time
        if isinstance(value, PLAIN) and not name.startswith("_") and name not in IPYTHON:
            given[name] = value
    return from_parameters(cls, given)


def _as_type(name: str, value: Any, wanted: Any) -> Any:
    if get_origin(wanted) is list:
        if not isinstance(value, list | tuple):
            _refuse(name, value, f"a list of {get_args(wanted)[0].__name__}")
        return [_as_type(name, item, get_args(wanted)[0]) for item in value]
    text = value.strip() if isinstance(value, str) else value
    try:
        if wanted is str and isinstance(value, str):
            return value
        if wanted is bool and str(text).lower() in ("true", "false"):
            return str(text).lower() == "true"
        if wanted in (int, float) and not isinstance(value, bool) and isinstance(value, str | int | float):
            number = float(text)
            if wanted is float and math.isfinite(number):
                return number
            if wanted is int and number.is_integer():
                return int(text) if isinstance(text, str) and text.lstrip("+-").isdigit() else int(number)
    except (ValueError, OverflowError):
        pass
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return _refuse(name, value, words[wanted])


def defaults(cls: type) -> dict[str, Any]:
    """Name and default of every parameter of a stage."""
    return {f.name: f.default_factory() if f.default is MISSING else f.default for f in fields(cls)}


def as_parameters(config: Any) -> dict[str, Any]:
    """A config as plain values, for papermill, YAML and the run's record."""
    return asdict(config)
