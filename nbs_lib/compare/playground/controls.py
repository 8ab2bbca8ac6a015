"""The playground's controls: prompts, seeds, steps, contenders, and the progress of a sampling."""

from dataclasses import asdict, dataclass, replace

from traitlets import Bool, Dict, Float, Int, List, Unicode

from ...config import Play
from ...config.contenders import SCHEDULERS
from ...config.validation import ParameterError
from ...files import from_project
from ...models import StableDiffusion
from ...models.lora.metadata import LORA_FILE, load_metadata
from ...run.run import Run, RunError
from ..sampling.sampler import Sampler
from .widgets import LiveWidget, script, style

MIN_ADAPTER_SCALE, MAX_ADAPTER_SCALE = -1, 3
MAX_GUIDANCE = 20.0  # the largest w of the slider, unless the adapter was trained for a larger one


@dataclass(frozen=True)
class ContenderOption:
    """A contender that the controls offer."""

    name: str  # the contender without its scale
    label: str  # its name on the page
    scale: str = ""  # symbol of its scale, "w", "λ" or ""
    reason: str = ""  # why it cannot be chosen, "" if it can


def contender_options(run: Run, sampler: Sampler) -> list[ContenderOption]:
    """Return the three standard contenders, and the other runs of the same folder by name."""
    options = [
        ContenderOption("unguided", "unguided"),
        ContenderOption("guided", "guided", "w"),
        ContenderOption("tuned", "tuned", "" if sampler.resolver.full_model else "λ"),
    ]
    # by name, so that the page looks the same each time
    for record in sorted(run.folder.parent.glob("*/run.json")):
        other = Run(record.parent)
        if other.folder != run.folder:
            reason = refusal(other, sampler.base)
            name = from_project(other.folder)
            options.append(ContenderOption(name, other.name, "λ", reason))
    return options


def refusal(run: Run, base: StableDiffusion) -> str:
    """Return why a run's adapter cannot be put on this base, "" if it can."""
    try:
        record = run.stage_record("train")
        if record.get("status") == "running":
            return "its training has not ended"
        if record.get("parameters", {}).get("method") == "full":
            return "all its weights were trained; open the playground on this run itself"
        if not (run.adapter / LORA_FILE).is_file():
            return "it has no adapter; train it first"
        metadata = load_metadata(run.adapter)
    except (RunError, ValueError, OSError) as failure:
        return str(failure)  # a damaged run beside this one must not keep the page from opening
    if metadata.get("base_hash") == base.hash:
        return ""
    theirs = f"{metadata.get('base', 'unknown')} ({metadata.get('base_hash', 'unknown'):.8})"
    return f"its adapter is of another base, {theirs}; this page's is {base.name} ({base.hash:.8})"


def panel_context(
    run: Run,
    sampler: Sampler,
    prompts: list[str],
) -> dict:
    """Return what a panel's fields offer. prompts: of the run's own comparison."""
    return {
        "options": [asdict(option) for option in contender_options(run, sampler)],
        "schedulers": list(SCHEDULERS),
        "prompts": prompts,
        "max_guidance": max(MAX_GUIDANCE, sampler.resolver.w_train),
    }


class ControlPanel(LiveWidget):
    """The controls. The page sends `stop` and `shuffle`.

    steps, guidance, scales: None for an empty field; scales are the λ by contender
    step, n_steps, task: progress of a sampling
    """

    _esm = script("panel")
    _css = style()
    prompts = Unicode()  # one a line
    seeds = Unicode("0")
    locked = Bool(True)
    steps = Float(25, allow_none=True)
    scheduler = Unicode()
    guidance = Float(1, allow_none=True)
    chosen = List(Unicode())  # names of the chosen options
    scales = Dict()
    other_contenders = Unicode()  # one a line
    context = Dict()  # what the fields offer, see `panel_context`
    # presses of Draw. It is a trait, so that it arrives after the fields.
    draw_requests = Int(0)
    history = List(Unicode())
    busy = Bool(False)
    step = Int(0)
    n_steps = Int(0)
    task = Unicode()
    note = Unicode()  # about the last sampling

    def show_progress(
        self,
        step: int,
        n_steps: int,
        task: str,
    ):
        """Show a task and its steps."""
        with self.hold_sync():
            self.step = step
            self.n_steps = n_steps
            self.task = task

    def fill(self, config: Play, w_train: float):
        """Fill the fields with a notebook's parameters."""
        options = self.context["options"]
        names = {option["name"] for option in options}
        self.prompts = "\n".join(config.prompts)
        self.seeds = ", ".join(map(str, config.seeds))
        self.steps = config.steps
        self.scheduler = config.scheduler
        self.guidance = config.guidance_scale or w_train
        self.chosen = [name for name in config.contenders if name in names]
        # contenders that no option stands for keep a place where they can be edited
        self.other_contenders = "\n".join(name for name in config.contenders if name not in names)
        scaled = [option["name"] for option in options if option["scale"] == "λ"]
        self.scales = dict.fromkeys(scaled, config.adapter_scale)

    def request(self, config: Play, w_train: float) -> Play:
        """Return the parameters in the fields, each contender with its scale.

        Errors: ParameterError, with what was given and what is allowed.
        """
        prompts = split_lines(self.prompts)
        if not prompts:
            raise ParameterError("The prompt is empty; write what the picture is to show.")
        steps = self._whole_steps()
        seeds = parse_seeds(self.seeds)
        # here, because 0 is allowed in the notebook's parameters: there it is the adapter's own w
        check_scale("w of guided", self.guidance, 1, self.context["max_guidance"])
        # in the order of the page, not of the clicks
        chosen = [option for option in self.context["options"] if option["name"] in self.chosen]
        contenders = [self._scaled_name(option, w_train) for option in chosen]
        contenders += split_lines(self.other_contenders)
        if not contenders:
            raise ParameterError("No contender is chosen; choose one or more.")
        return replace(
            config,
            prompts=prompts,
            seeds=seeds,
            steps=steps,
            scheduler=self.scheduler,
            guidance_scale=self.guidance,
            contenders=list(dict.fromkeys(contenders)),
        )

    def _whole_steps(self):
        """Return the steps in the field; `Play` checks their range."""
        if self.steps is None:
            raise ParameterError("steps is empty; write a whole number from 1 to 100")
        # the field takes any number: 2.5 must be refused, not cut to 2
        if not float(self.steps).is_integer():
            raise ParameterError(
                f"parameter steps: given {self.steps:g}; allowed is a whole number from 1 to 100"
            )
        return int(self.steps)

    def _scaled_name(self, option, w_train):
        name = option["name"]
        if option["scale"] == "w":
            return scaled_name(name, self.guidance, w_train)
        if not option["scale"]:
            return name
        scale = self.scales.get(name, 1.0)
        check_scale(f"λ of {name}", scale, MIN_ADAPTER_SCALE, MAX_ADAPTER_SCALE)
        return scaled_name(name, scale, 1.0)


def check_scale(
    name: str,
    scale: float | None,
    low: float,
    high: float,
):
    """Raise ParameterError unless a scale is between two numbers."""
    if scale is None:
        raise ParameterError(f"{name} is empty; write a number from {low:g} to {high:g}")
    if not low <= scale <= high:
        raise ParameterError(
            f"{name}: given {scale:g}; allowed is a number from {low:g} to {high:g}"
        )


def scaled_name(
    name: str,
    scale: float,
    default: float,
) -> str:
    """Return a contender's name with its scale, if that is not the default."""
    return name if scale == default else f"{name} at {scale:g}"


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
