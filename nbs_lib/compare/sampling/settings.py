"""How each contender is sampled: its steps, guidance, scheduler, and what of all that was trained is in the weights."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...config.contenders import SCHEDULERS, Contender, parse_contender
from ...models import StableDiffusion, find_base
from ...models.lora import LORA_FILE, METADATA_FILE, load_metadata
from ...models.sampling_recipe import sampling_recipe
from .adapters import adapter_of, check_same_base


@dataclass(frozen=True)
class SamplingSettings:
    """How pictures are sampled. w: guidance scale; guided: the share of the steps, from the first one on, that have it;
    negative: what it is guided away from; scheduler: a class of diffusers; adapters: folders, each with its λ; model: folder
    of a UNet or a pipeline of its own, None for the base's; engine: see `engines`."""

    steps: int
    w: float
    guided: float
    negative: str
    scheduler: str
    adapters: tuple[tuple[Path, float], ...] = ()
    model: Path | None = None
    engine: str = "eager"


class SettingsResolver:
    """The ways of a base and of what was trained on it.

    w_train, objective, sampling, negative: as they are recorded with it; negative is the prompt that the teacher guided away
    from. whole: whether all weights were trained. tuned_steps: of `tuned`, None for as many as the base's. scheduler: of every
    contender that is not asked for with another; "" for its own.
    """

    def __init__(
        self, base: StableDiffusion, learned: Path, tuned_steps: int = 0, scheduler: str = ""
    ):
        """learned: folder of an adapter or of a whole model; tuned_steps: 0 for what it was trained for.

        Errors: BaseError where it was trained on another base.
        """
        self.base, self.learned, facts = base, learned, load_metadata(learned)
        check_same_base(base, facts, learned)
        self.w_train, self.negative = facts["w_train"], facts.get("negative", "")
        self.objective, self.whole = (
            facts.get("objective", "guidance"),
            not (learned / LORA_FILE).exists(),
        )
        self.sampling = sampling_recipe(facts)
        self.tuned_steps, self.scheduler = tuned_steps or self.sampling["steps"], scheduler

    def of(
        self,
        name: str,
        steps: int,
        adapter_scale: float = 1.0,
        guidance: float | None = None,
        scheduler: str = "",
    ) -> SamplingSettings:
        """The way of a contender; see `Sampler.sample`."""
        who, scheduler = parse_contender(name), scheduler or self.scheduler
        if scheduler and scheduler not in SCHEDULERS:
            raise ValueError(
                f"scheduler: given {scheduler!r}; allowed is one of {', '.join(SCHEDULERS)}"
            )
        if guidance is not None and not 1 <= guidance <= 100:
            raise ValueError(f"guidance: given {guidance:g}; allowed is 1 to 100")
        if not -10 <= adapter_scale <= 10:
            raise ValueError(f"adapter_scale: given {adapter_scale:g}; allowed is -10 to 10")
        if who.kind == "base":
            w = who.scale or guidance or self.w_train
            return SamplingSettings(
                who.steps or steps, w if who.guided else 1.0, who.guided, self.negative, scheduler or "DDIMScheduler",
                engine=who.engine,
            )  # fmt: skip
        own, negative, sampled = (
            self._pipeline(who) if who.kind == "pipeline" else self._learned(who, adapter_scale)
        )
        w = own["guidance_scale"] if who.scale is None else who.scale
        if guidance not in (None, w) and who.kind != "pipeline":
            warnings.warn(
                f"guidance_scale: given {guidance:g}; this adapter was trained for {w:g}, and is guided twice",
                stacklevel=3,
            )
        w = who.scale or guidance or w
        guided = 1.0 if who.guided is None else who.guided
        steps = who.steps or own["steps"] or steps
        return SamplingSettings(
            steps, w, guided, negative, scheduler or own["scheduler"], engine=who.engine, **sampled
        )

    def _pipeline(self, who: Contender) -> tuple[dict[str, Any], str, dict[str, Any]]:
        """Of another pipeline: how it is to be sampled, the prompt to go away from, and what is sampled."""
        path = Path(find_base(who.folders[0][0]).folder)
        facts = (
            load_metadata(path)
            if (path / METADATA_FILE).is_file()
            else {"sampling": {"guidance_scale": self.w_train}}
        )
        return sampling_recipe(facts), facts.get("negative", self.negative), {"model": path}

    def _learned(
        self, who: Contender, adapter_scale: float
    ) -> tuple[dict[str, Any], str, dict[str, Any]]:
        """The same of adapters, or of what was trained here."""
        if who.kind == "adapters":
            scaled = tuple((adapter_of(folder), scale) for folder, scale in who.folders)
            told = [load_metadata(folder) for folder, _ in scaled]
            for (folder, _), facts in zip(scaled, told, strict=True):
                check_same_base(self.base, facts, folder)
            # one that holds its guidance would be guided twice if it were sampled as another is
            facts = min(told, key=lambda facts: sampling_recipe(facts)["guidance_scale"])
            return sampling_recipe(facts), facts.get("negative", ""), {"adapters": scaled}
        own = self.sampling | {"steps": self.tuned_steps}
        scale = adapter_scale if who.adapter_scale is None else who.adapter_scale
        if not self.whole:
            return own, self.negative, {"adapters": ((self.learned, scale),)}
        if scale != 1:
            raise ValueError(
                f"adapter_scale: given {scale:g}; allowed is 1, for all weights were trained"
            )
        return own, self.negative, {"model": self.learned}
