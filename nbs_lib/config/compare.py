"""Parameters of `3_compare.ipynb` and of the playground."""

from functools import cached_property
from typing import Literal

from .contenders import CONTENDERS, SCHEDULERS, Contender, parse_contender
from .fields import group
from .grid_axes import Axis, parse_axes
from .stage import Stage, check_range, check_texts, parameters
from .validation import ParameterError, reject

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
SEEDS = "a list of whole numbers from 0 to 2,147,483,647, one or more, each once"
PROMPTS = "a list of prompts, none of them empty"
FIRST_PROMPTS = "a list of one prompt or more, none of them empty"
SCALES = "a list of numbers above 0, 10 at most, each once"
Scheduler = Literal["", *SCHEDULERS]
"""diffusers' schedulers that a base may be sampled with; empty for each contender's own."""

run_group = group("Run")
pictures = group("Pictures")
sampling = group("Sampling")
measuring = group("Measurements")
voting = group("Blind test")


def check_seeds(seeds: list[int]):
    """Raise ParameterError unless there are seeds, each within its range and once."""
    if not seeds or len(set(seeds)) < len(seeds) or not all(0 <= seed < 2**31 for seed in seeds):
        reject("seeds", seeds, SEEDS)


@parameters
class Compare(Stage):
    """Parameters of `3_compare.ipynb`: base and tuned from the same noise, looked at and measured."""

    run: str = run_group(
        "outputs/notebook",
        "Folder of the run, relative to the project.",
        pattern=r"\S",
        allowed="a folder",
    )

    prompts: list[str] = pictures(
        [],
        "Prompts of the pictures, empty for the ten of the reference comparison.",
        allowed=PROMPTS,
    )
    seeds: list[int] = pictures(
        [0], "Seeds of the pictures' noise. Each prompt is drawn once for each seed.", allowed=SEEDS
    )
    contenders: list[str] = pictures(
        ["unguided", "guided", "tuned"],
        "Contenders: these three, and others beside them. The forms are listed in nbs_lib/config/contenders.py.",
        allowed=f"a list of {', '.join(CONTENDERS)}, and others beside them, each once",
    )
    axes: list[str] = pictures(
        [],
        'Two or three axes of a grid of pictures. Each is NAME: VALUE | VALUE, such as "steps: 5 | 25"; the names are '
        "listed in nbs_lib/config/grid_axes.py.",
        allowed="a list of two or three NAME: VALUE | VALUE, or an empty one",
    )

    steps: int = sampling(25, "Sampling steps.", ge=1, le=1000)
    scheduler: Scheduler = sampling(
        "",
        "Scheduler of all contenders. Empty takes each contender's own: DDIM, or the one of a few-step adapter.",
    )
    tuned_steps: int = sampling(
        0,
        "Sampling steps of the tuned model. 0 takes as many as it was trained for: few for consistency, "
        "else those of the base.",
        ge=0,
        le=1000,
    )
    adapter_scale: float = sampling(1.0, "Strength of the adapter, λ.", ge=-10.0, le=10.0)
    batch_size: int = sampling(20, "Pictures sampled at once.", ge=1, le=4096)

    captions: int = measuring(
        150,
        "Held-out captions of the picture-book for the caption accuracy, 0 for none.",
        ge=0,
        le=100_000,
    )
    clip: str = measuring(
        "auto",
        "CLIP that scores: auto, embedded, none, a folder or a hub id. Embedded is the embedded base's own for any base, "
        "auto the same for that base only.",
        pattern=r"\S",
        allowed="auto, embedded, none, a folder or a hub id",
    )
    effective_guidance_at: list[float] = measuring(
        [],
        "Adapter scales whose nearest guidance scale is measured. Empty measures none.",
        allowed=SCALES,
    )

    replace: bool = run_group(
        False,
        "Replacement of a finished stage that has other parameters. Without it such a stage is refused.",
    )

    def __post_init__(self):
        if not self.prompts:  # the record holds the prompts that were drawn
            object.__setattr__(self, "prompts", list(REFERENCE_PROMPTS))
        check_texts(self, "prompts", PROMPTS)
        check_seeds(self.seeds)
        self._check_contenders()
        scales = self.effective_guidance_at
        if len(set(scales)) < len(scales) or not all(0 < scale <= 10 for scale in scales):
            reject("effective_guidance_at", scales, SCALES)
        try:
            self.grid_axes  # noqa: B018
        except ValueError as wrong:
            raise ParameterError(f"parameter axes: {wrong}") from None

    def _check_contenders(self):
        try:
            parsed = self.parsed_contenders
        except ValueError as wrong:
            raise ParameterError(f"parameter contenders: {wrong}") from None
        if not set(CONTENDERS) <= set(parsed):
            reject(
                "contenders", self.contenders, f"{', '.join(CONTENDERS)}, and others beside them"
            )
        if len(parsed) < len(self.contenders):
            reject("contenders", self.contenders, "each of them once")

    @cached_property
    def parsed_contenders(self) -> dict[str, Contender]:
        """The contenders by their names. Errors: ValueError, with what is allowed."""
        return {name: parse_contender(name) for name in self.contenders}

    @cached_property
    def grid_axes(self) -> list[Axis]:
        """The axes of the grid. Errors: ValueError, with what is allowed."""
        return parse_axes(self.axes)


@parameters
class Play(Stage):
    """Parameters of `playground.ipynb`: what its controls say when it opens."""

    run: str = run_group(
        "outputs/notebook",
        "Folder of the run, relative to the project.",
        pattern=r"\S",
        allowed="a folder",
    )
    prompts: list[str] = pictures(
        ["A person in a red shirt holding a black cat on the left"],
        "First prompts.",
        allowed=FIRST_PROMPTS,
    )
    seeds: list[int] = pictures(
        [0], "Seeds of the noise that all contenders start from.", allowed=SEEDS
    )
    contenders: list[str] = pictures(
        ["guided", "tuned"],
        "Contenders that draw, as in 3_compare, or folders of other runs.",
        allowed="a list of one or more, each of them once",
    )
    steps: int = sampling(25, "Sampling steps.", ge=1, le=100)
    scheduler: Scheduler = sampling(
        "", "Scheduler of all contenders. Empty takes each contender's own."
    )
    guidance_scale: float = sampling(
        0.0,
        "Guidance scale w of the base, 0 for the one that the adapter was trained for.",
        ge=0.0,
        le=100.0,
        allowed="0, or a number from 1 to 100",
    )
    adapter_scale: float = sampling(1.0, "Strength of the adapter, λ.", ge=-1.0, le=3.0)
    pairs: int = voting(10, "Pairs of pictures in a blind comparison.", ge=1, le=1000)

    def __post_init__(self):
        if not self.prompts:
            reject("prompts", self.prompts, FIRST_PROMPTS)
        check_texts(self, "prompts", FIRST_PROMPTS)
        check_seeds(self.seeds)
        if not self.contenders or len(set(self.contenders)) < len(
            self.contenders
        ):  # their pictures say which ones exist
            reject("contenders", self.contenders, "a list of one or more, each of them once")
        if self.guidance_scale:
            check_range(self, "guidance_scale", 1.0, 100.0)
