"""Parameters of `3_compare.ipynb` and of the playground."""

from functools import cached_property
from typing import Literal

from .contenders import CONTENDERS, SCHEDULERS, Contender, parse_contender
from .fields import group
from .grid_axes import Axis, parse_axes
from .measuring.prompts_file import read_prompts
from .measuring.scores import ALLOWED as ALLOWED_SCORES
from .measuring.scores import parse_scores
from .stage import REPLACE, RUN, Stage, check_range, check_texts, parameters
from .validation import ParameterError, reject

# the prompts of the reference comparison, in DeepSpeedExamples' `training/stable_diffusion`
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
# allowed values in words, for the fields and for the checks of their items
SEEDS = "a list of whole numbers from 0 to 2,147,483,647, one or more, each once"
PROMPTS = "a list of prompts, none of them empty"
FIRST_PROMPTS = "a list of one prompt or more, none of them empty"
SCALES = "a list of numbers above 1, 50 at most, each once"
FIRST_CONTENDERS = "a list of one or more, each of them once"
OTHER_CONTENDERS = f"{', '.join(CONTENDERS)}, and others beside them"
# the empty choice takes each contender's own
Scheduler = Literal["", *SCHEDULERS]

pictures = group("Pictures")
sampling = group("Sampling")
measuring = group("Measurements")
voting = group("Blind test")


def check_seeds(seeds: list[int]):
    """Raise ParameterError unless there are seeds, each within its range and once."""
    # a seed that stands twice would only be the same picture twice
    if not seeds or len(set(seeds)) < len(seeds) or not all(0 <= seed < 2**31 for seed in seeds):
        reject("seeds", seeds, SEEDS)


@parameters
class Compare(Stage):
    """Parameters of `3_compare.ipynb`: base and tuned from the same noise, looked at and
    measured.
    """

    run: str = RUN

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
        "Contenders: these three, and others beside them. "
        "The forms are listed in nbs_lib/config/contenders.py.",
        allowed=f"a list of {OTHER_CONTENDERS}, each once",
    )
    axes: list[str] = pictures(
        [],
        "Two or three axes of a grid of pictures. Each is NAME: VALUE | VALUE, such as "
        '"steps: 5 | 25"; the names are listed in nbs_lib/config/grid_axes.py.',
        allowed="a list of two or three NAME: VALUE | VALUE, or an empty one",
    )

    # every base has 1000 timesteps or more, see `models.checks`
    steps: int = sampling(25, "Sampling steps.", ge=1, le=1000)
    scheduler: Scheduler = sampling(
        "",
        "Scheduler of all contenders. "
        "Empty takes each contender's own: DDIM, or the one of a few-step adapter.",
    )
    tuned_steps: int = sampling(
        0,
        "Sampling steps of the tuned model. 0 takes as many as it was trained for: "
        "few for consistency and distribution, else those of the base.",
        ge=0,
        le=1000,
    )
    # below 0 the adapter is subtracted
    adapter_scale: float = sampling(1.0, "Strength of the adapter, λ.", ge=-10.0, le=10.0)
    batch_size: int = sampling(20, "Pictures sampled at once.", ge=1, le=4096)
    mixed_precision: Literal["no", "bf16", "fp16"] = sampling(
        "no",
        "Arithmetic of the denoiser: no (fp32), bf16 or fp16. "
        "The results state their distance from fp32.",
    )

    captions: int = measuring(
        150,
        "Held-out captions of the picture-book whose pictures are measured, 0 for none. "
        "Another base has none.",
        ge=0,
        le=100_000,
    )
    prompts_file: str = measuring(
        "",
        "File of prompts whose pictures are measured in place of the captions. A text file has one "
        "on each line; empty lines and those that begin with # are left out. A benchmark's .jsonl "
        "has them in prompt, a .tsv in its column Prompt.",
        allowed="empty, or a text file, a .jsonl or a .tsv",
    )
    clip: str = measuring(
        "auto",
        "CLIP that scores: auto, embedded, none, a folder or a hub id. Embedded is the embedded "
        "base's own for any base, auto the same for the embedded bases only.",
        pattern=r"\S",
        allowed="auto, embedded, none, a folder or a hub id",
    )
    features: str = measuring(
        "",
        "Vision model, such as DINOv2, in whose features the distance to guided is measured. "
        "It is a folder or a hub id; empty takes the CLIP.",
        allowed="empty, a folder or a hub id",
    )
    scores: list[str] = measuring(
        [],
        "Scores by models of their own: pickscore, hpsv2.1, cmmd, fd_dinov2. Each is NAME: MODEL, "
        'such as "pickscore: models/pickscore"; see nbs_lib/config/measuring/scores.py.',
        allowed=ALLOWED_SCORES,
    )
    dial_at: list[float] = measuring(
        [],
        "Guidance scales that are asked of the adapter's dial, and measured. Empty measures none.",
        allowed=SCALES,
    )

    replace: bool = REPLACE

    def __post_init__(self):
        if not self.prompts:
            # frozen; the record must hold the prompts that were used, also if the ten change
            object.__setattr__(self, "prompts", list(REFERENCE_PROMPTS))
        check_texts(self, "prompts", PROMPTS)
        check_seeds(self.seeds)
        self._check_contenders()
        scales = self.dial_at
        # pydantic's limits would be those of the list, not of its items
        if len(set(scales)) < len(scales) or not all(1 < scale <= 50 for scale in scales):
            reject("dial_at", scales, SCALES)
        for name, parsed in (("axes", "grid_axes"), ("scores", "parsed_scores")):
            try:
                getattr(self, parsed)
            except ValueError as failure:
                raise ParameterError(str(failure), name) from None

    def _check_contenders(self):
        try:
            parsed = self.parsed_contenders
        except ValueError as failure:
            raise ParameterError(str(failure), "contenders") from None
        if not set(CONTENDERS) <= set(parsed):
            reject("contenders", self.contenders, OTHER_CONTENDERS)
        # a dict holds each name once
        if len(parsed) < len(self.contenders):
            reject("contenders", self.contenders, "each of them once")

    @cached_property
    def parsed_contenders(self) -> dict[str, Contender]:
        """The contenders by their names. Errors: ValueError, with the allowed forms."""
        return {name: parse_contender(name) for name in self.contenders}

    @cached_property
    def file_prompts(self) -> list[str]:
        """The prompts of `prompts_file`, [] without one. Errors: ParameterError."""
        return read_prompts(self.prompts_file) if self.prompts_file else []

    @cached_property
    def grid_axes(self) -> list[Axis]:
        """The axes of the grid. Errors: ValueError, with the allowed forms."""
        return parse_axes(self.axes)

    @cached_property
    def parsed_scores(self) -> dict[str, str]:
        """The model of each score. Errors: ValueError, with the allowed forms."""
        return parse_scores(self.scores)


@parameters
class Play(Stage):
    """Parameters of `playground.ipynb`: what its controls say when it opens."""

    run: str = RUN
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
        allowed=FIRST_CONTENDERS,
    )
    steps: int = sampling(25, "Sampling steps.", ge=1, le=100)
    scheduler: Scheduler = sampling(
        "", "Scheduler of all contenders. Empty takes each contender's own."
    )
    negative: str = sampling(
        "", "Negative prompt of guided contenders. Empty takes the one of the training."
    )
    width: int = sampling(0, "Width in pixels, 0 for the training's.", ge=0, le=8192)
    height: int = sampling(0, "Height in pixels, 0 for the training's.", ge=0, le=8192)
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
        # not parsed here: the pictures say which contenders exist
        if not self.contenders or len(set(self.contenders)) < len(self.contenders):
            reject("contenders", self.contenders, FIRST_CONTENDERS)
        if self.guidance_scale:
            check_range(self, "guidance_scale", 1.0, 100.0)
