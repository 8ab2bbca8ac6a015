"""The contenders that the controls offer: the base, this run's adapter, those of other runs."""

from dataclasses import dataclass

from ...config.validation import ParameterError
from ...files import from_project
from ...models import StableDiffusion
from ...models.lora.dial import guidance_scale_at
from ...models.lora.metadata import LORA_FILE, load_metadata
from ...models.sampling_recipe import holds_guidance
from ...run.run import Run, RunError
from ..sampling.sampler import Sampler

MIN_ADAPTER_SCALE, MAX_ADAPTER_SCALE = -1, 3
MAX_GUIDANCE = 20.0  # the largest w of the slider, unless the adapter was trained for a larger one


@dataclass(frozen=True)
class Dial:
    """The slider of a contender's scale."""

    symbol: str  # w or λ
    low: float
    high: float
    step: float
    usual: float  # the scale of the contender whose name has none
    word: str = "at"  # before the scale in a contender's name

    def contender(self, name: str, value: float | None) -> str:
        """Return the contender that a value of the slider stands for.

        value: None for an empty field
        Errors: ParameterError
        """
        title = f"{self.symbol} of {name}"
        allowed = f"a number from {self.low:g} to {self.high:g}"
        if value is None:
            raise ParameterError(f"{title} is empty; write {allowed}")
        if not self.low <= value <= self.high:
            raise ParameterError(f"{title}: given {value:g}; allowed is {allowed}")
        return name if value == self.usual else f"{name} {self.word} {value:g}"


@dataclass(frozen=True)
class ContenderOption:
    """A contender that the controls offer."""

    name: str  # the contender without its scale
    label: str  # its name on the page
    about: str = ""  # what it is, in a few words
    dial: Dial | None = None
    other_run: bool = False  # true if it must be chosen from the list of adapters first
    reason: str = ""  # why it cannot be chosen, "" if it can


def contender_options(run: Run, sampler: Sampler) -> list[ContenderOption]:
    """Return the three standard contenders, and the other runs of the same folder by name."""
    resolver = sampler.resolver
    guidance = Dial("w", 1, max(MAX_GUIDANCE, resolver.w_train), 0.25, resolver.w_train)
    # an adapter that holds its guidance needs one pass, a fine-tuned one as many as its base
    about_tuned = f"this run, {passes(resolver.sampling['guidance_scale'] > 1)}"
    scale = None if resolver.full_model else own_dial(resolver.metadata)
    options = [
        ContenderOption("guided", "guided", f"base, {passes(True)}", guidance),
        ContenderOption("tuned", "tuned", about_tuned, scale),
        ContenderOption("unguided", "unguided", f"base, {passes(False)}"),
    ]
    # by name, so that the page looks the same each time
    for record in sorted(run.folder.parent.glob("*/run.json")):
        other = Run(record.parent)
        if other.folder != run.folder:
            options.append(_option_of_run(other, sampler.base))
    return options


def passes(guided: bool) -> str:
    """Return the denoiser evaluations of a sampling step, in words."""
    return "2 passes a step" if guided else "1 pass a step"


def own_dial(metadata: dict) -> Dial:
    """Return the slider of this run's adapter: w if it was measured which λ gives it, or else λ."""
    points = metadata.get("dial")
    if not points:
        return adapter_dial()
    usual = round(guidance_scale_at(metadata, 1.0), 2)
    return Dial("w", 1, points[-1][0], 0.25, usual, "for")


def adapter_dial() -> Dial:
    """Return the slider of an adapter's scale."""
    return Dial("λ", MIN_ADAPTER_SCALE, MAX_ADAPTER_SCALE, 0.05, 1.0)


def _option_of_run(run, base):
    name = from_project(run.folder)
    reason = refusal(run, base)
    if reason:
        return ContenderOption(name, run.name, other_run=True, reason=reason)
    guided = not holds_guidance(load_metadata(run.adapter))
    about = f"other run, {passes(guided)}"
    return ContenderOption(name, run.name, about, adapter_dial(), other_run=True)


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
