"""The gallery's rows: a prompt and a seed, sampled by several contenders."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ....config import STAGES, Play
from ....config.contenders import CONTENDERS
from ....config.validation import as_parameters
from ....config.yaml12 import dump
from ....run.run import Run


@dataclass(frozen=True)
class Sample:
    """The picture of one contender, or the reason why there is none."""

    image: np.ndarray | None  # uint8 [h, w, 3], or None
    note: str  # the cost, or the reason
    metadata: dict[str, Any] = field(default_factory=dict)  # see `files`


@dataclass(frozen=True)
class GalleryRow:
    """A prompt and a seed, sampled by several contenders from the same noise."""

    prompt: str
    seed: int
    request: Play  # the parameters in the controls
    samples: dict[str, Sample]  # by contender
    time: str = ""  # ISO 8601

    @property
    def pictures(self) -> list[Sample]:
        """The samples that have a picture."""
        return [sample for sample in self.samples.values() if sample.image is not None]

    def shows(self, prompt: str, seed: int, settings: dict[str, dict[str, Any]]) -> bool:
        """Return True if sampling again would give the same pictures.

        settings: by contender, everything that its pictures depend on besides prompt and seed
        """
        if (self.prompt, self.seed) != (prompt, seed) or not settings.keys() <= self.samples.keys():
            return False
        return all(
            self.samples[name].metadata.items() >= expected.items()
            for name, expected in settings.items()
        )

    def sides(self, name: str, last: str) -> tuple[str, str]:
        """Return the contenders at the left and the right of the viewer.

        name: the right one, "" for one that failed, or else `tuned`
        last: goes to the left, "" for `guided`
        """
        names = list(self.samples)
        if not name:
            failed = [other for other in names if self.samples[other].image is None]
            name = failed[0] if failed else _first_of_kind(names, "tuned")
        others = [other for other in names if other != name] or [name]
        before = last if last in others else _first_of_kind(others, "guided")
        return before, name


def _first_of_kind(names: Sequence[str], kind: str) -> str:
    """Return the first contender of a kind, or else the first."""
    return next((name for name in names if name.startswith(kind)), names[0])


def cost_note(nfe: float, seconds: float) -> str:
    """Return what a picture cost, in words. nfe: denoiser evaluations."""
    passes = "denoiser pass" if nfe == 1 else "denoiser passes"
    return f"{nfe:g} {passes}, {seconds:.2f}\u00a0s"


def recipe(run: Run, request: Play) -> str:
    """Return a recipe whose comparison is a request, as YAML for `onepass run`."""
    stages = {}
    # with the run's own preparation and training, a run of the same name repeats neither
    for stage in ("prepare", "train"):
        defaults = as_parameters(STAGES[stage]())
        parameters = run.stage_record(stage).get("parameters", {})
        changed = {
            name: parameters[name]
            for name, default in defaults.items()
            if name != "run" and parameters.get(name, default) != default
        }
        if changed:
            stages[stage] = changed
    # every comparison must have the three standard contenders
    contenders = list(dict.fromkeys([*CONTENDERS, *request.contenders]))
    stages["compare"] = {
        "prompts": request.prompts,
        "seeds": request.seeds,
        "contenders": contenders,
        "steps": request.steps,
    }
    if request.scheduler:
        stages["compare"]["scheduler"] = request.scheduler
    return dump(stages)
