"""Who can be picked on the playground: the base, this run's adapter, and those of the runs beside it."""

from dataclasses import asdict, dataclass

from ...files import from_project
from ...models import StableDiffusion
from ...models.lora import LORA_FILE, load_metadata
from ...run.run import Run, RunError
from ..sampling.sampler import Sampler


@dataclass(frozen=True)
class ContenderOption:
    """name: of the contender, without its scale; label: what the page calls it; scale: w, λ or nothing; why: it cannot be
    picked, in words."""

    name: str
    label: str
    scale: str = ""
    why: str = ""


def contender_options(run: Run, sampler: Sampler) -> list[dict[str, str]]:
    """Every choice as plain values: the three of every comparison, then the other runs in the same folder, by name."""
    ours = [
        ContenderOption("unguided", "unguided"),
        ContenderOption("guided", "guided", "w"),
        ContenderOption("tuned", "tuned", "" if sampler.whole else "λ"),
    ]
    others = [Run(record.parent) for record in sorted(run.folder.parent.glob("*/run.json"))]
    others = [
        ContenderOption(option_name(other), other.name, "λ", refusal(other, sampler.base))
        for other in others
        if other.folder != run.folder
    ]
    return [asdict(choice) for choice in ours + others]


def option_name(run: Run) -> str:
    """A run as a contender's name: its folder, from the project where it is in it."""
    return from_project(run.folder)


def refusal(run: Run, base: StableDiffusion) -> str:
    """Why the adapter of a run cannot be put on this base; empty where it can."""
    try:
        trained = run.stage_record("train")
        if trained.get("status") == "running":
            return "its training has not ended"
        if trained.get("parameters", {}).get("method") == "full":
            return "all its weights were trained; open the playground on this run itself"
        if not (run.adapter / LORA_FILE).is_file():
            return "it has no adapter; train it first"
        facts = load_metadata(run.adapter)
    except (RunError, ValueError, OSError) as failure:
        return str(failure)
    if facts.get("base_hash") == base.hash:
        return ""
    theirs = f"{facts.get('base', 'unknown')} ({facts.get('base_hash', 'unknown'):.8})"
    return f"its adapter is of another base, {theirs}; this page's is {base.name} ({base.hash:.8})"


def scaled(name: str, scale: float, own: float) -> str:
    """A contender's name with its scale, where that is not the one it has by itself."""
    return name if scale == own else f"{name} at {scale:g}"
