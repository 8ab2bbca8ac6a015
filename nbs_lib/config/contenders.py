"""Contenders of a comparison, parsed from their names.

unguided      the base, one conditional pass a step (guidance scale 1)
guided        the base with guidance scale w, two passes a step
selective-N   the base, guided except on the last N % of its steps.
              Source: arXiv 2305.09847, where N is 20 and 50
tuned         the trained weights, sampled as they were trained: an adapter added to the base's
              weights, or a whole denoiser; one conditional pass a step, except for fine-tuned ones,
              which are guided like the base
hybrid-N      tuned, and guided also on the first N % of its steps, at a low scale
FOLDER        the adapter of another run (outputs/NAME, or its adapter/), sampled as it was
              trained; several at once are joined by +
pipeline FOLDER   any other local pipeline of a known family, guided like the base

After a name: `at 0.5`, its scale: w if guided, λ of an adapter; after tuned `for 3`, the w that
its dial chooses λ for; `in 4 steps`; `on compile` or `on deepspeed`, the engine that evaluates its
denoiser (see `engines`).

    guided at 3        tuned at 0.5        tuned for 3        tuned on compile
    outputs/few in 4 steps
    outputs/style at 0.7 + outputs/subject at 0.5
"""

import re
from dataclasses import dataclass, replace

# the three of every comparison: the measurements compare them with one another
CONTENDERS = ("unguided", "guided", "tuned")
# guidance scale of a hybrid's guided steps: low, because tuned weights hold the teacher's already
SPLIT_CONTENDER = 1.5
ENGINES = ("eager", "compile", "deepspeed")
# diffusers' schedulers that a diffusion may be sampled with, and a flow
DIFFUSION_SAMPLERS = (
    "DDIMScheduler",
    "EulerDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "UniPCMultistepScheduler",
    "LCMScheduler",
)
FLOW_SAMPLERS = (
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchLCMScheduler",
    "DPMSolverMultistepScheduler",
    "UniPCMultistepScheduler",
)
SCHEDULERS = tuple(dict.fromkeys(DIFFUSION_SAMPLERS + FLOW_SAMPLERS))
# of these schedulers, "" for the base's own
TIMESTEP_SPACINGS = ("", "leading", "linspace", "trailing")
KINDS = re.compile(r"unguided|guided|tuned|(selective|hybrid)-([1-9]\d?)")
STEPS = re.compile(r"(?P<rest>.+) in (?P<steps>\d{1,4}) steps?")
ENGINE = re.compile(r"(?P<rest>.+) on (?P<engine>\w+)")
NUMBER = r"-?\d+(?:\.\d+)?(?:e-?\d+)?"
SCALED = re.compile(rf"(?P<rest>.+?)(?: at (?P<scale>{NUMBER}))?")
DIAL = re.compile(rf"tuned for (?P<w>{NUMBER})")
# the allowed forms, for errors
CONTENDER_FORMS = (
    f"{', '.join(CONTENDERS)}, selective-N, hybrid-N (N in %), a run's folder or "
    f"`pipeline FOLDER`; after it `at SCALE`, `in N steps`, `on ENGINE`, after tuned `for W`"
)
W_RANGE = (1.0, 100.0, "w")
# negative: an adapter may also be subtracted
ADAPTER_SCALE_RANGE = (-10.0, 10.0, "λ")


@dataclass(frozen=True)
class Contender:
    """One model of a comparison, and how it is sampled.

    name: the text that was parsed
    kind: base, tuned, adapters or pipeline
    guided: share of the steps, from the first one on, that are guided; None for the usual share
    scale: w of the guided steps; None for the usual one
    adapter_scale: λ of the trained adapter; None for the comparison's
    dial: w that its dial chooses λ for; None if λ is given
    folders: other adapters with the λ of each, or a pipeline
    steps: sampling steps; None for the usual number
    engine: one of ENGINES
    """

    name: str
    kind: str = "base"
    guided: float | None = None
    scale: float | None = None
    adapter_scale: float | None = None
    dial: float | None = None
    folders: tuple[tuple[str, float], ...] = ()
    steps: int | None = None
    engine: str = "eager"

    @property
    def tuned(self) -> bool:
        """True if the weights that this run trained are sampled."""
        return self.kind == "tuned"


def parse_contender(name: str) -> Contender:
    """Return the contender of that name. Errors: ValueError, with the allowed forms."""
    rest = name.strip()
    steps = None
    engine = "eager"
    # twice: steps and engine may stand in either order
    for _ in range(2):
        if match := STEPS.fullmatch(rest):
            rest = match["rest"]
            steps = int(match["steps"])
        # an unknown engine after a slash is part of a path: a run may be called `cat on mat`
        elif (match := ENGINE.fullmatch(rest)) and (match["engine"] in ENGINES or "/" not in rest):
            rest = match["rest"]
            engine = match["engine"]
    if not rest:
        raise _unknown_form(name)
    if engine not in ENGINES:
        allowed = f"one of {', '.join(ENGINES)}"
        raise ValueError(f"contender {name!r}: engine {engine!r}; allowed is {allowed}")
    if steps is not None and not 1 <= steps <= 1000:
        raise ValueError(f"contender {name!r}: {steps} steps; allowed are 1 to 1000")
    return replace(_parse_model(rest.strip(), name), steps=steps, engine=engine)


def _parse_model(rest: str, name: str) -> Contender:
    # first: the scale after a sum belongs to its last adapter
    if " + " in rest:
        folders = [_adapter(part.strip(), name) for part in rest.split(" + ")]
        return Contender(name, "adapters", folders=tuple(folders))
    if match := DIAL.fullmatch(rest):
        w = _check_scale(float(match["w"]), W_RANGE, name)
        return Contender(name, "tuned", dial=w)
    model, scale = _split_scale(rest)
    if match := KINDS.fullmatch(model):
        return _contender_of_run(match, scale, name)
    if model.startswith("pipeline "):
        folder = model.removeprefix("pipeline ").strip()
        w = _check_scale(scale, W_RANGE, name)
        # a pipeline has no adapter; the 1 keeps the folders of all kinds alike
        return Contender(name, "pipeline", 1.0, w, folders=((folder, 1.0),))
    return Contender(name, "adapters", folders=(_adapter(rest, name),))


def _contender_of_run(match: re.Match, scale: float | None, name: str) -> Contender:
    kind = match[1] or match[0]
    share = int(match[2] or 0) / 100
    if kind in ("tuned", "hybrid"):
        adapter_scale = _check_scale(scale, ADAPTER_SCALE_RANGE, name)
        # None: the objective decides how tuned weights are guided
        guided, w = (share, SPLIT_CONTENDER) if kind == "hybrid" else (None, None)
        return Contender(name, "tuned", guided, w, adapter_scale)
    if kind == "unguided" and scale is not None:
        raise ValueError(
            f"contender {name!r}: unguided has no scale; "
            f"leave out `at {scale:g}`, or give `guided at {scale:g}`"
        )
    guided = {"unguided": 0.0, "guided": 1.0}.get(kind, 1 - share)
    return Contender(name, "base", guided, _check_scale(scale, W_RANGE, name))


def _adapter(part: str, name: str) -> tuple[str, float]:
    """Return a folder and its λ."""
    folder, scale = _split_scale(part)
    # a bare word is more likely a misspelt name than a folder
    if "/" not in folder:
        raise _unknown_form(name)
    return folder, 1.0 if scale is None else _check_scale(scale, ADAPTER_SCALE_RANGE, name)


def _split_scale(text: str) -> tuple[str, float | None]:
    match = SCALED.fullmatch(text)
    return match["rest"], None if match["scale"] is None else float(match["scale"])


def _check_scale(scale: float | None, limits: tuple[float, float, str], name: str) -> float | None:
    low, high, symbol = limits
    if scale is not None and not low <= scale <= high:
        allowed = f"{low:g} to {high:g}"
        raise ValueError(f"contender {name!r}: {symbol} = {scale:g}; allowed is {allowed}")
    return scale


def _unknown_form(name: str) -> ValueError:
    return ValueError(f"contender: given {name!r}; allowed is {CONTENDER_FORMS}")


def slug(name: str) -> str:
    """Return a contender's name as a part of a file's name: without a path or a space."""
    # dots at the ends would hide the file, or point to a parent folder
    return re.sub(r"[^\w.-]+", "_", name).strip("_.") or "_"
