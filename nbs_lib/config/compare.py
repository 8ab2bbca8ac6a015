"""Parameters of `3_compare.ipynb` and of the playground."""

from dataclasses import dataclass, field

from .contenders import CONTENDERS, SCHEDULERS, parse_contender
from .grid_axes import parse_axes
from .validation import ParameterError, between, one_of, refuse, said

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


def different_seeds(seeds: list[int]):
    """Errors: ParameterError."""
    if not seeds or len(set(seeds)) < len(seeds) or not all(0 <= seed < 2**31 for seed in seeds):
        refuse("seeds", seeds, "one whole number or more, from 0 to 2147483647, each once")


@dataclass(frozen=True)
class Compare:
    """Parameters of `3_compare.ipynb`: base and tuned from the same noise, looked at and measured."""

    run: str = "outputs/notebook"
    """Folder of the run, relative to the project."""
    prompts: list[str] = field(default_factory=lambda: list(REFERENCE_PROMPTS))
    """Prompts of the pictures."""
    seeds: list[int] = field(default_factory=lambda: [0])
    """Seeds of the pictures' noise; each prompt is drawn once for each."""
    contenders: list[str] = field(default_factory=lambda: ["unguided", "guided", "tuned"])
    """Who is compared: these three, and others beside them; see nbs_lib/config/contenders.py."""
    steps: int = 25
    """Sampling steps."""
    scheduler: str = ""
    """DDIMScheduler, EulerDiscreteScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler or LCMScheduler; empty for
    each contender's own: DDIM, or what a few-step adapter was trained for."""
    tuned_steps: int = 0
    """Sampling steps of the tuned model; 0 is what it was trained for: few for consistency, else as many as the base's."""
    adapter_scale: float = 1.0
    """How strongly the adapter is applied."""
    captions: int = 150
    """Held-out captions of the picture-book that the rates are measured on; 0 leaves them out."""
    clip: str = "auto"
    """The CLIP that scores: auto (the embedded base's own, for that base alone), embedded (that one for any base), none, a
    folder or a hub id."""
    dial: list[float] = field(default_factory=list)
    """Adapter scales whose nearest guidance scale is measured; empty leaves it out."""
    axes: list[str] = field(default_factory=list)
    """Two or three axes of a grid of pictures, NAME: VALUE | VALUE, e.g. "steps: 5 | 25"; see nbs_lib/config/grid_axes.py."""
    batch_size: int = 20
    """Pictures sampled at once."""
    replace: bool = False
    """Whether a finished stage of the run that has other parameters is replaced; else it is refused."""

    def __post_init__(self):
        said(self, "run", "a folder")
        if not self.prompts or not all(prompt.strip() for prompt in self.prompts):
            refuse("prompts", self.prompts, "one prompt or more, none of them empty")
        different_seeds(self.seeds)
        try:
            for name in self.contenders:
                parse_contender(name)
        except ValueError as wrong:
            raise ParameterError(f"parameter contenders: {wrong}") from None
        if not set(CONTENDERS) <= set(self.contenders):
            refuse(
                "contenders", self.contenders, f"{', '.join(CONTENDERS)}, and others beside them"
            )
        if len(set(self.contenders)) < len(self.contenders):
            refuse("contenders", self.contenders, "each of them once")
        between(self, "steps", 1, 1000)
        one_of(self, "scheduler", ("", *SCHEDULERS))
        between(self, "tuned_steps", 0, 1000)
        between(self, "adapter_scale", -10.0, 10.0)
        between(self, "captions", 0, 100_000)
        said(self, "clip", "auto, none, a folder or a hub id")
        if len(set(self.dial)) < len(self.dial) or not all(0 < turn <= 10 for turn in self.dial):
            refuse(
                "dial", self.dial, "numbers above 0, 10 at most, each once; none measures no dial"
            )
        try:
            parse_axes(self.axes)
        except ValueError as wrong:
            raise ParameterError(f"parameter axes: {wrong}") from None
        between(self, "batch_size", 1, 4096)


@dataclass(frozen=True)
class Play:
    """Parameters of `playground.ipynb`: what its controls say when it opens."""

    run: str = "outputs/notebook"
    """Folder of the run, relative to the project."""
    prompts: list[str] = field(
        default_factory=lambda: ["A person in a red shirt holding a black cat on the left"]
    )
    """What the first pictures show."""
    seeds: list[int] = field(default_factory=lambda: [0])
    """Seeds of the noise that all contenders start from."""
    contenders: list[str] = field(default_factory=lambda: ["guided", "tuned"])
    """Who draws, as in `3_compare`; or another run's folder."""
    steps: int = 25
    """Sampling steps."""
    scheduler: str = ""
    """DDIMScheduler, EulerDiscreteScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler or LCMScheduler; empty for
    each contender's own."""
    guidance: float = 0.0
    """Guidance scale w of the base; 0 is the one that the adapter was trained for."""
    adapter_scale: float = 1.0
    """How strongly an adapter is applied: λ."""
    pairs: int = 10
    """Pairs of pictures in a blind comparison."""

    def __post_init__(self):
        said(self, "run", "a folder")
        if not self.prompts or not all(prompt.strip() for prompt in self.prompts):
            refuse("prompts", self.prompts, "one prompt or more, none of them empty")
        different_seeds(self.seeds)
        if not self.contenders or len(set(self.contenders)) < len(
            self.contenders
        ):  # which there are is said by their pictures
            refuse("contenders", self.contenders, "one or more, each of them once")
        one_of(self, "scheduler", ("", *SCHEDULERS))
        between(self, "steps", 1, 100)
        if self.guidance:
            between(self, "guidance", 1.0, 100.0)
        between(self, "adapter_scale", -1.0, 3.0)
        between(self, "pairs", 1, 1000)
