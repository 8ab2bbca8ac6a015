"""Sampling settings of a contender: steps, guidance, scheduler, and its adapters or model."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...config.contenders import SCHEDULERS, parse_contender
from ...models import StableDiffusion, find_base
from ...models.lora.dial import adapter_scale_for
from ...models.lora.metadata import LORA_FILE, METADATA_FILE, load_metadata
from ...models.sampling_recipe import sampling_recipe
from .adapters import check_same_base, find_adapter


@dataclass(frozen=True)
class SamplingSettings:
    """Everything that a contender's pictures depend on besides the base, prompts and seeds."""

    contender: str = field(compare=False)  # its name; it makes no difference between settings
    steps: int  # sampling steps
    w: float  # guidance scale
    negative: str  # the prompt that guidance leads away from
    scheduler: str  # name of a class of diffusers
    timestep_spacing: str = ""  # of the scheduler, "" for the base's own
    guided: float = 1.0  # share of the steps, from the first one on, that are guided, 0 to 1
    adapters: tuple[tuple[Path, float], ...] = ()  # folders, each with its λ
    model: Path | None = None  # folder of a denoiser or of another pipeline, None for the base's
    engine: str = "eager"  # one of ENGINES
    # width and height in pixels, None for the sampler's resolution
    size: tuple[int, int] | None = None


class SettingsResolver:
    """The sampling settings of every contender, given a base and what a run trained on it.

    w_train, objective, sampling, negative: recorded at the training; the teacher was guided away
        from `negative`
    full_model: True if all weights were trained, not an adapter
    tuned_steps: steps of `tuned`, None for as many as the base's
    """

    def __init__(
        self, base: StableDiffusion, learned: Path, tuned_steps: int = 0, scheduler: str = ""
    ):
        """Read what was recorded at the training.

        learned: folder of an adapter or of a whole model
        tuned_steps: steps of `tuned`, 0 for those that it was trained for
        scheduler: scheduler of all contenders, "" for each contender's own
        Errors: BaseError if it was trained on another base.
        """
        metadata = load_metadata(learned)
        # weights of another base would give noise, and no error
        check_same_base(base, metadata, learned)
        self.base = base
        self.learned = learned
        self.scheduler = scheduler
        self.metadata = metadata
        self.w_train: float = metadata["w_train"]
        self.negative: str = metadata.get("negative", "")
        self.objective: str = metadata.get("objective", "guidance")
        # only an adapter has this file; a full model is a whole pipeline
        self.full_model = not (learned / LORA_FILE).exists()
        self.sampling = sampling_recipe(metadata)
        self.tuned_steps: int | None = tuned_steps or self.sampling["steps"]

    def resolve(
        self,
        name: str,
        steps: int,
        adapter_scale: float = 1.0,
        guidance: float | None = None,
        scheduler: str = "",
        negative: str | None = None,
        size: tuple[int, int] | None = None,
    ) -> SamplingSettings:
        """Return the settings of a contender; its name goes before the arguments.

        name: a contender, see `config.contenders`
        steps: sampling steps of the base, 1 or more
        adapter_scale: λ of what this run trained, -10 to 10
        guidance: guidance scale, 1 to 100, None for the contender's own. `tuned` is warned of: its
            weights hold the guidance already.
        scheduler: one of SCHEDULERS, "" for the resolver's, or else the contender's own
        negative: negative prompt, None for the contender's own. It is for guided contenders only:
            one pass has no second prediction to lead away from.
        size: width and height in pixels, None for the sampler's resolution
        Errors: ValueError for an unknown contender or scheduler, or a scale out of range; BaseError
        for an adapter of another base; FileNotFoundError for a folder with nothing to sample.
        """
        contender = parse_contender(name)
        scheduler = scheduler or self.scheduler
        # here too: the playground and Python code pass values that no config has checked
        if scheduler and scheduler not in SCHEDULERS:
            allowed = ", ".join(SCHEDULERS)
            raise ValueError(f"scheduler: given {scheduler!r}; allowed is one of {allowed}")
        if guidance is not None and not 1 <= guidance <= 100:
            raise ValueError(f"guidance: given {guidance:g}; allowed is 1 to 100")
        if not -10 <= adapter_scale <= 10:
            raise ValueError(f"adapter_scale: given {adapter_scale:g}; allowed is -10 to 10")
        default = self._default_settings(contender, steps, adapter_scale)
        trained_w = default.w if contender.scale is None else contender.scale
        if guidance not in (None, trained_w) and contender.kind in ("tuned", "adapters"):
            warnings.warn(
                f"guidance_scale: given {guidance:g}; this adapter was trained for {trained_w:g}, "
                "and is guided twice",
                stacklevel=2,
            )
        guided = default.guided if contender.guided is None else contender.guided
        # the name first: it is what figures and tables show
        w = (contender.scale or guidance or default.w) if guided else 1.0
        return replace(
            default,
            steps=contender.steps or default.steps,
            w=w,
            # not of unguided ones: their pictures do not depend on it, nor may their cache
            negative=default.negative if negative is None or w <= 1 else negative,
            guided=guided,
            scheduler=scheduler or default.scheduler,
            engine=contender.engine,
            size=size,
        )

    def _default_settings(self, contender, steps, adapter_scale):
        """Return a contender's settings before its name and the arguments change them."""
        if contender.kind == "base":
            return SamplingSettings(
                contender.name,
                steps,
                self.w_train,
                self.negative,
                self.base.sampler("DDIMScheduler")[0],
            )
        if contender.kind == "pipeline":
            return self._pipeline_settings(contender, steps)
        if contender.kind == "adapters":
            return self._adapter_settings(contender, steps)
        return self._tuned_settings(contender, steps, adapter_scale)

    def _tuned_settings(self, contender, steps, adapter_scale):
        """Return the settings of what this run trained."""
        scale = adapter_scale if contender.adapter_scale is None else contender.adapter_scale
        if contender.dial is not None:
            scale = self.adapter_scale_for(contender.dial)
        recipe = self.sampling | {"steps": self.tuned_steps}
        default = _recipe_settings(self.base, contender, recipe, steps, self.negative)
        if not self.full_model:
            return replace(default, adapters=((self.learned, scale),))
        if scale != 1:
            raise ValueError(
                f"adapter_scale: given {scale:g}; allowed is 1, because all weights were trained"
            )
        return replace(default, model=self.learned)

    def adapter_scale_for(self, w: float) -> float:
        """Return the λ that gives the guidance scale w, by the dial of what this run trained.

        Errors: ValueError without a guidance adapter, or if it gives no such w.
        """
        # other objectives teach no guidance, and a full model has no λ
        if self.objective != "guidance" or self.full_model:
            raise ValueError(
                f"guidance scale: given {w:g}; only an adapter of the objective guidance has a dial"
            )
        return adapter_scale_for(self.metadata, w)

    def _pipeline_settings(self, contender, steps):
        """Return the settings of another pipeline, which is guided like the base by default."""
        base = find_base(contender.folders[0][0])
        path = Path(base.folder)
        metadata = {"sampling": {"guidance_scale": self.w_train}}
        # one that was trained here says whether it holds its guidance
        if (path / METADATA_FILE).is_file():
            metadata = load_metadata(path)
        negative = metadata.get("negative", self.negative)
        recipe = sampling_recipe(metadata)
        return replace(_recipe_settings(base, contender, recipe, steps, negative), model=path)

    def _adapter_settings(self, contender, steps):
        """Return the settings of one or several adapters, each checked against the base."""
        adapters = tuple((find_adapter(folder), scale) for folder, scale in contender.folders)
        records = [load_metadata(folder) for folder, _ in adapters]
        for (folder, _), metadata in zip(adapters, records, strict=True):
            check_same_base(self.base, metadata, folder)
        metadata = min(records, key=_demands)
        recipe = sampling_recipe(metadata)
        negative = metadata.get("negative", "")
        default = _recipe_settings(self.base, contender, recipe, steps, negative)
        return replace(default, adapters=adapters)


def _demands(metadata):
    """Return a key that is least for the adapter whose recipe a sum of adapters must follow."""
    recipe = sampling_recipe(metadata)
    # the least guidance: an adapter that holds its guidance would be guided twice by another's;
    # then the fewest steps: a few-step adapter knows no others
    return recipe["guidance_scale"], recipe["steps"] or 1000


def _recipe_settings(base, contender, recipe, steps, negative):
    # a recipe without a scheduler of its own has the default one
    scheduler, spacing = base.sampler(recipe["scheduler"], recipe["timestep_spacing"])
    return SamplingSettings(
        contender.name,
        recipe["steps"] or steps,
        recipe["guidance_scale"],
        negative,
        scheduler,
        spacing,
    )


def prompt_seed_pairs(prompts: Sequence[str], seeds: Sequence[int]) -> tuple[list[str], list[int]]:
    """Return prompt and seed of each picture, as two lists: all seeds of the first prompt first."""
    pairs = [(prompt, seed) for prompt in prompts for seed in seeds]
    return [prompt for prompt, _ in pairs], [seed for _, seed in pairs]
