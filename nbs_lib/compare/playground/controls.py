"""The playground's controls: what is to be drawn, by whom, and how far it is."""

from dataclasses import replace
from typing import Any

import anywidget
import traitlets

from ...config import Play
from ...config.validation import ParameterError
from .choices import scaled
from .widgets import script, style


class ControlPanel(anywidget.AnyWidget):
    """The controls. The page sends `stop` and `shuffle`; what its fields hold is checked by `asked`.

    wanted: how often Draw was pressed; it comes with what the fields hold by then.
    prompts: one a line. steps, guidance, scales: None where their field is empty. chosen: names out of `choices`; scales: λ by
    name; more: other contenders, one a line. done, of: steps of the sampling that `doing` names; note: on the last drawing.
    context: what the fields offer.
    """

    _esm, _css = script("panel"), style()
    prompts = traitlets.Unicode().tag(sync=True)
    seeds = traitlets.Unicode("0").tag(sync=True)
    locked = traitlets.Bool(True).tag(sync=True)
    steps = traitlets.Float(25, allow_none=True).tag(sync=True)
    scheduler = traitlets.Unicode().tag(sync=True)
    guidance = traitlets.Float(1, allow_none=True).tag(sync=True)
    chosen = traitlets.List(traitlets.Unicode()).tag(sync=True)
    scales = traitlets.Dict().tag(sync=True)
    more = traitlets.Unicode().tag(sync=True)
    context = traitlets.Dict().tag(sync=True)
    wanted = traitlets.Int(0).tag(sync=True)
    history = traitlets.List(traitlets.Unicode()).tag(sync=True)
    busy = traitlets.Bool(False).tag(sync=True)
    done = traitlets.Int(0).tag(sync=True)
    of = traitlets.Int(0).tag(sync=True)
    doing = traitlets.Unicode().tag(sync=True)
    note = traitlets.Unicode().tag(sync=True)

    def progress(self, done: int, of: int, doing: str):
        """So many steps of what is being done are done."""
        with self.hold_sync():
            self.done, self.of, self.doing = done, of, doing

    def open_with(self, config: Play, w_train: float):
        """Fill the fields with a notebook's parameters."""
        names = {choice["name"] for choice in self.context["choices"]}
        self.prompts, self.seeds = "\n".join(config.prompts), ", ".join(map(str, config.seeds))
        self.steps, self.scheduler, self.guidance = (
            config.steps,
            config.scheduler,
            config.guidance_scale or w_train,
        )
        self.chosen = [name for name in config.contenders if name in names]
        self.more = "\n".join(name for name in config.contenders if name not in names)
        self.scales = {
            each["name"]: config.adapter_scale
            for each in self.context["choices"]
            if each["scale"] == "λ"
        }

    def asked(self, config: Play, w_train: float) -> Play:
        """What the fields say, with every contender under its whole name. Errors: ParameterError."""
        prompts = [line.strip() for line in self.prompts.splitlines() if line.strip()]
        if not prompts:
            raise ParameterError("The prompt is empty; write what the picture is to show.")
        if self.steps is None:
            raise ParameterError("steps is empty; write a whole number from 1 to 100")
        if not float(self.steps).is_integer():
            raise ParameterError(
                f"parameter steps: given {self.steps:g}; allowed is a whole number from 1 to 100"
            )
        told = {
            "prompts": prompts,
            "seeds": seeds_of(self.seeds),
            "steps": int(self.steps),
            "scheduler": self.scheduler,
        }
        most = self.context["guidance"]
        if self.guidance is None:
            raise ParameterError(f"w of guided is empty; write a number from 1 to {most:g}")
        if (
            not 1 <= self.guidance <= most
        ):  # 0 means another thing in the notebook's parameters than in this field
            raise ParameterError(
                f"guidance w: given {self.guidance:g}; allowed is a number from 1 to {most:g}"
            )
        contenders = [
            self._named(choice, w_train)
            for choice in self.context["choices"]
            if choice["name"] in self.chosen
        ]
        contenders += [line.strip() for line in self.more.splitlines() if line.strip()]
        if not contenders:
            raise ParameterError("No contender is chosen; choose one or more.")
        return replace(
            config, **told, guidance_scale=self.guidance, contenders=list(dict.fromkeys(contenders))
        )

    def _named(self, choice: dict[str, str], w_train: float) -> str:
        name, scale = choice["name"], self.scales.get(choice["name"], 1.0)
        if choice["scale"] == "w":
            return scaled(name, self.guidance, w_train)
        if choice["scale"] == "λ" and scale is None:
            raise ParameterError(f"λ of {name} is empty; write a number from -1 to 3")
        if choice["scale"] == "λ" and not -1 <= scale <= 3:
            raise ParameterError(f"λ of {name}: given {scale:g}; allowed is a number from -1 to 3")
        return scaled(name, scale, 1.0) if choice["scale"] else name


def seeds_of(text: str) -> list[int]:
    """Whole numbers between commas or spaces. Errors: ParameterError for anything else; `Play` checks their size."""
    try:
        return [int(word) for word in text.replace(",", " ").split()]
    except ValueError:
        raise ParameterError(
            f"parameter seeds: given {text!r}; allowed are whole numbers from 0 to 2147483647, with commas between them"
        ) from None


def offered_contenders(
    choices: list[dict[str, str]], schedulers: tuple[str, ...], prompts: list[str], w_train: float
) -> dict[str, Any]:
    """A panel's context: what its fields offer. prompts: of the run's own comparison; guidance: the largest w."""
    return {
        "choices": choices,
        "schedulers": list(schedulers),
        "prompts": prompts,
        "guidance": max(20.0, w_train),
    }
