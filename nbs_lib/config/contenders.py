"""Who is compared: the base and what was trained, guided on all, some or none of the steps; and others beside them.

unguided      the base, one conditional pass a step (guidance scale 1)
guided        the base with guidance scale w, two passes a step
selective-N   the base, guided but for the last N % of its steps. Source: arXiv 2305.09847, where N is 20 and 50
tuned         what was trained, sampled as it was trained to be: an adapter added to the base's weights, or a whole UNet; in
              one conditional pass a step, but for fine-tuned ones, which are guided like the base
hybrid-N      tuned, and guided besides on the first N % of its steps, at a low scale
FOLDER        the adapter of another run (outputs/NAME, or its adapter/), sampled as it was trained to be; two or more of them
              at once are joined by +
pipeline FOLDER   any other local pipeline of a known family, guided like the base

After a name: `at 0.5`, its scale: w of what is guided, λ of an adapter; `in 4 steps`; `on compile` or `on deepspeed`, the
engine that evaluates its UNet (see `engines`).

    guided at 3        tuned at 0.5        tuned on compile        outputs/few in 4 steps
    outputs/style at 0.7 + outputs/subject at 0.5
"""

import re
from dataclasses import dataclass, replace

CONTENDERS = ("unguided", "guided", "tuned")
"""The three that every comparison has."""
SPLIT_CONTENDER = 1.5
"""The guidance scale of a hybrid's guided steps: what was trained holds the teacher's already."""
ENGINES = ("eager", "compile", "deepspeed")
SCHEDULERS = (
    "DDIMScheduler",
    "EulerDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "UniPCMultistepScheduler",
    "LCMScheduler",
)
"""Of diffusers, those that a base may be sampled with."""
KINDS = re.compile(r"unguided|guided|tuned|(selective|hybrid)-([1-9]\d?)")
STEPS = re.compile(r"(?P<rest>.+) in (?P<steps>\d{1,4}) steps?")
ENGINE = re.compile(r"(?P<rest>.+) on (?P<engine>\w+)")
SCALED = re.compile(r"(?P<rest>.+?)(?: at (?P<scale>-?\d+(?:\.\d+)?(?:e-?\d+)?))?")
CONTENDER_FORMS = (
    f"{', '.join(CONTENDERS)}, selective-N, hybrid-N (N in %), a run's folder or `pipeline FOLDER`; after it `at SCALE`, "
    f"`in N steps`, `on ENGINE`"
)
"""What a contender may be, in words."""


@dataclass(frozen=True)
class Contender:
    """name: as it was given. kind: base, tuned, adapters or pipeline.

    guided: the share of the steps, from the first one on, that are guided, where that is not its own way; scale: w of what is
    guided, None for its own; adapter_scale: λ of what was trained, None for the comparison's; folders: of other adapters
    with the λ of each, or of a pipeline; steps: None for its own; engine: one of ENGINES.
    """

    name: str
    kind: str = "base"
    guided: float | None = None
    scale: float | None = None
    adapter_scale: float | None = None
    folders: tuple[tuple[str, float], ...] = ()
    steps: int | None = None
    engine: str = "eager"

    @property
    def tuned(self) -> bool:
        """Whether what this run trained is sampled."""
        return self.kind == "tuned"


def parse_contender(name: str) -> Contender:
    """The contender of that name. Errors: ValueError, with what is allowed."""
    rest, steps, engine = name.strip(), None, "eager"
    for _ in range(2):  # the two may stand in either order
        if told := STEPS.fullmatch(rest):
            rest, steps = told["rest"], int(told["steps"])
        # a run may be called `cat on mat`
        elif (told := ENGINE.fullmatch(rest)) and (told["engine"] in ENGINES or "/" not in rest):
            rest, engine = told["rest"], told["engine"]
    if not rest:
        raise ValueError(f"contender: given {name!r}; allowed is {CONTENDER_FORMS}")
    if engine not in ENGINES:
        raise ValueError(
            f"contender {name!r}: engine {engine!r}; allowed is one of {', '.join(ENGINES)}"
        )
    if steps is not None and not 1 <= steps <= 1000:
        raise ValueError(f"contender {name!r}: {steps} steps; allowed are 1 to 1000")
    return replace(_who(rest.strip(), name), name=name, steps=steps, engine=engine)


def _who(rest: str, name: str) -> Contender:
    if " + " in rest:
        return Contender(
            name,
            "adapters",
            folders=tuple(_adapter(part.strip(), name) for part in rest.split(" + ")),
        )
    who, scale = _scaled(rest)
    if told := KINDS.fullmatch(who):
        return _of_this_run(told, scale, name)
    if who.startswith("pipeline "):
        return Contender(
            name,
            "pipeline",
            1.0,
            _within(scale, 1.0, 100.0, "w", name),
            folders=((who[9:].strip(), 1.0),),
        )
    return Contender(name, "adapters", folders=(_adapter(rest, name),))


def _of_this_run(told: re.Match, scale: float | None, name: str) -> Contender:
    kind, share = told[1] or told[0], int(told[2] or 0) / 100
    if kind in ("tuned", "hybrid"):
        guided, own = (share, SPLIT_CONTENDER) if kind == "hybrid" else (None, None)
        return Contender(
            name, "tuned", guided, own, adapter_scale=_within(scale, -10.0, 10.0, "λ", name)
        )
    if kind == "unguided" and scale is not None:
        raise ValueError(
            f"contender {name!r}: unguided has no scale; leave out `at {scale:g}`, or give `guided at {scale:g}`"
        )
    guided = {"unguided": 0.0, "guided": 1.0}.get(kind, 1 - share)
    return Contender(name, "base", guided, _within(scale, 1.0, 100.0, "w", name))


def _adapter(part: str, name: str) -> tuple[str, float]:
    """A folder and its λ. A bare word is more likely a misspelt name than a folder."""
    folder, scale = _scaled(part)
    if "/" not in folder:
        raise ValueError(f"contender: given {name!r}; allowed is {CONTENDER_FORMS}")
    return folder, 1.0 if scale is None else _within(scale, -10.0, 10.0, "λ", name)


def _scaled(text: str) -> tuple[str, float | None]:
    told = SCALED.fullmatch(text)
    return told["rest"], None if told["scale"] is None else float(told["scale"])


def _within(scale: float | None, low: float, high: float, symbol: str, name: str) -> float | None:
    if scale is not None and not low <= scale <= high:
        raise ValueError(
            f"contender {name!r}: {symbol} = {scale:g}; allowed is {low:g} to {high:g}"
        )
    return scale


def slug(name: str) -> str:
    """A contender's name as a part of a file's name: no path, no space."""
    return re.sub(r"[^\w.-]+", "_", name).strip("_.") or "_"
