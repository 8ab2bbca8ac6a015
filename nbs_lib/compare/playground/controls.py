"""The playground's controls: prompts, seeds, sizes, contenders, and the progress of a sampling."""

from dataclasses import asdict, replace

from traitlets import Bool, Dict, Float, Int, List, Unicode

from ...config import Play
from ...config.validation import ParameterError
from ...models.lora.dial import guidance_scale_at
from ...run.run import Run
from ..sampling.sampler import Sampler
from ..sampling.settings import SettingsResolver
from .options import ContenderOption, contender_options
from .widgets import LiveWidget, script, style


class ControlPanel(LiveWidget):
    """The controls. The page sends `stop` and `shuffle`.

    steps, width, height: None for an empty field
    scales: the value of each option's dial by its name, w or λ; None for an empty field
    step, n_steps, task: progress of a sampling
    """

    _esm = script("panel")
    _css = style()
    prompts = Unicode()  # one a line
    negative = Unicode()
    seeds = Unicode("0")
    locked = Bool(True)
    steps = Float(25, allow_none=True)
    scheduler = Unicode()
    width = Float(128, allow_none=True)
    height = Float(128, allow_none=True)
    chosen = List(Unicode())  # names of the chosen options
    scales = Dict()
    other_contenders = Unicode()  # one a line
    # what the fields offer: options, sizes, schedulers, prompts of the run's own comparison
    context = Dict()
    # presses of Draw. It is a trait, so that it arrives after the fields.
    draw_requests = Int(0)
    history = List(Unicode())
    busy = Bool(False)
    step = Int(0)
    n_steps = Int(0)
    task = Unicode()
    message = Unicode()  # why nothing was drawn, or not all
    hints = Unicode()  # about the prompts and the size, one a line

    def __init__(self, run: Run, sampler: Sampler, prompts: list[str]):
        """prompts: of the run's own comparison"""
        self.options: list[ContenderOption] = contender_options(run, sampler)
        self.sizes = sampler.sizes
        super().__init__(
            context={
                "options": [asdict(option) for option in self.options],
                "sizes": asdict(self.sizes),
                "schedulers": list(sampler.base.schedulers),
                "prompts": prompts,
            }
        )

    @property
    def prompt_lines(self) -> list[str]:
        """The prompts."""
        return split_lines(self.prompts)

    def show_progress(self, step: int, n_steps: int, task: str):
        """Show a task and its steps."""
        with self.hold_sync():
            self.step = step
            self.n_steps = n_steps
            self.task = task

    def fill(self, config: Play, resolver: SettingsResolver):
        """Fill the fields with a notebook's parameters, and the others with the training's."""
        names = {option.name for option in self.options}
        self.prompts = "\n".join(config.prompts)
        self.negative = config.negative or resolver.negative
        self.seeds = ", ".join(map(str, config.seeds))
        self.steps = config.steps
        self.scheduler = config.scheduler
        self.width = config.width or self.sizes.trained
        self.height = config.height or self.sizes.trained
        self.chosen = [name for name in config.contenders if name in names]
        # contenders that no option stands for keep a place where they can be edited
        self.other_contenders = "\n".join(name for name in config.contenders if name not in names)
        dials = {option.name: option.dial for option in self.options if option.dial}
        scales = {name: config.adapter_scale for name in dials}
        scales["guided"] = config.guidance_scale or resolver.w_train
        # its slider is of w if it was measured which λ gives it
        if "tuned" in dials and dials["tuned"].word == "for":
            w = guidance_scale_at(resolver.metadata, config.adapter_scale)
            scales["tuned"] = round(w, 2)
        # at once: the page hears of a new dict, not of a change inside
        self.scales = scales

    def request(self, config: Play) -> Play:
        """Return the parameters in the fields, each contender with its scale.

        Errors: ParameterError or ValueError, with what was given and what is allowed.
        """
        prompts = self.prompt_lines
        if not prompts:
            raise ParameterError("The prompt is empty; write what the picture is to show.")
        seeds = parse_seeds(self.seeds)
        steps = whole_number("steps", self.steps, "a whole number from 1 to 100")
        size = {name: self._side(name) for name in ("width", "height")}
        # in the order of the page, not of the clicks
        chosen = [option for option in self.options if option.name in self.chosen]
        contenders = [self._contender(option) for option in chosen]
        contenders += split_lines(self.other_contenders)
        if not contenders:
            raise ParameterError("No contender is chosen; choose one or more.")
        return replace(
            config,
            prompts=prompts,
            negative=self.negative.strip(),
            seeds=seeds,
            steps=steps,
            scheduler=self.scheduler,
            contenders=list(dict.fromkeys(contenders)),
            **size,
        )

    def _side(self, name):
        """Return the width or the height in its field, checked."""
        sizes = self.sizes
        allowed = f"a multiple of {sizes.step} from {sizes.low} to {sizes.high}"
        side = whole_number(name, getattr(self, name), allowed)
        sizes.check(name, side)
        return side

    def _contender(self, option):
        """Return an option's contender with the scale in its field."""
        if option.dial is None:
            return option.name
        value = self.scales.get(option.name, option.dial.usual)
        return option.dial.contender(option.name, value)


def whole_number(name: str, value: float | None, allowed: str) -> int:
    """Return the number in a field; `Play` checks its range.

    allowed: the allowed values in words
    Errors: ParameterError for an empty field, or a number with a fraction.
    """
    if value is None:
        raise ParameterError(f"{name} is empty; write {allowed}")
    # the field takes any number: 2.5 must be refused, not cut to 2
    if not float(value).is_integer():
        raise ParameterError(f"parameter {name}: given {value:g}; allowed is {allowed}")
    return int(value)


def split_lines(text: str) -> list[str]:
    """Return the lines of a text that are not blank."""
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line]


def parse_seeds(text: str) -> list[int]:
    """Return the whole numbers between commas or spaces; `Play` checks their range.

    Errors: ParameterError for anything else.
    """
    try:
        return [int(word) for word in text.replace(",", " ").split()]
    except ValueError:
        raise ParameterError(
            f"parameter seeds: given {text!r}; allowed are whole numbers from 0 to 2147483647, "
            "with commas between them"
        ) from None
