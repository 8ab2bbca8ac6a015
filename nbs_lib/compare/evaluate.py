"""The evaluation of a comparison: the pictures of every contender, and the numbers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..config import Compare
from ..models import StableDiffusion
from ..run.progress_bar import progress_bar, write_above_bar
from ..run.run import Run
from .measured_set import SHOWN, MeasuredSet, draw_references, measured_set
from .measurements import (
    BAR_OPTIONS,
    SamplesByName,
    measure_caption_accuracy,
    measure_costs,
    measure_diversity,
    measure_features,
    measure_fidelity,
    measure_scores,
)
from .metrics.clip import Clip, load_clip
from .metrics.dial import dial_settings, measure_dial
from .metrics.vision import VisionModel, load_vision_model
from .own_pictures import (
    BEFORE_AND_AFTER,
    OwnPictures,
    draw_own_captions,
    measure_likeness,
    read_own_examples,
)
from .published_scores import load_scores, measure_published_scores
from .sampling.grid import grid_cells, sample_grid
from .sampling.sample_cache import SampleCache
from .sampling.sampler import Sampler
from .sampling.settings import SamplingSettings, prompt_seed_pairs

MAX_CUTS = 10  # prompts that are named because they are cut
MAX_NAME_LENGTH = 24  # letters of a contender's name beside a progress bar


@dataclass(frozen=True)
class Evaluation:
    """The pictures and the numbers of a comparison."""

    sampler: Sampler
    config: Compare
    prompts: list[str]  # of each picture
    seeds: list[int]  # of each picture
    samples: SamplesByName  # pictures by contender
    grid: np.ndarray | None  # uint8 [parts, rows, columns, h, w, 3], None without axes
    own: OwnPictures | None  # of a fine-tuning
    results: dict  # the numbers and settings, as results.json holds them


def evaluate(cache: SampleCache, config: Compare) -> Evaluation:
    """Sample the contenders from the same noise, and measure them.

    Errors: ClipError; VisionModelError; ParameterError for the file of prompts; ValueError for an
    axis that changes no picture.
    """
    sampler = cache.sampler
    resolver = sampler.resolver
    models = load_models(config, sampler.base)
    cuts = report_cut_prompts(config.prompts + config.file_prompts, sampler.base.tokenizer())
    cells = grid_cells(resolver, config)  # refuses axes before anything is sampled
    settings = [
        resolver.resolve(name, config.steps, config.adapter_scale) for name in config.contenders
    ]
    costs = measure_costs(sampler, settings, config)
    prompts, seeds = prompt_seed_pairs(config.prompts, config.seeds)
    measured = measured_set(sampler, config)
    # the pictures that are shown are sampled in any case
    n_more = 0 if measured.source == SHOWN else len(measured.prompts)
    dial = dial_settings(resolver, config)
    # a progress bar needs the number before the first picture
    n_pictures = len(settings) * (len(prompts) + n_more)
    n_pictures += (len(dial) if dial else 0) * len(measured.prompts) + len(cells)
    fine_tuned = resolver.objective == "finetune"
    examples = read_own_examples(Run(config.run)) if fine_tuned else None
    n_pictures += len(BEFORE_AND_AFTER) * len(examples.captions) if examples else 0
    measured_dial = grid = own = None
    with sampling_bar(cache, n_pictures):
        samples = sample_contenders(cache, settings, prompts, seeds)
        scored = samples
        if n_more:
            scored = sample_contenders(cache, settings, measured.prompts, measured.seeds)
        if dial is not None:
            measured_dial = measure_dial(cache, dial, measured.prompts, measured.seeds)
        if cells:
            grid = sample_grid(cache, cells, config)
        if examples:
            own = draw_own_captions(cache, settings, examples)
    quality, shared = measure_quality(scored, measured, models, resolver.objective)
    diversities = measure_diversity(samples, prompts)
    contenders = {}
    for name in config.contenders:
        contenders[name] = costs[name] | quality[name] | {"diversity": diversities[name]}
    results = (
        settings_of(sampler, config)
        | shared
        | {
            "contenders": contenders,
            "dial": measured_dial,
            "time_ratio": costs["tuned"]["seconds"] / costs["guided"]["seconds"],
            "nfe_ratio": costs["tuned"]["nfe"] / costs["guided"]["nfe"],
            "cut_prompts": cuts,
            "own": measure_likeness(own, models.vision or models.clip) if own else None,
        }
    )
    return Evaluation(sampler, config, prompts, seeds, samples, grid, own, results)


class Models(NamedTuple):
    """The models that see a comparison's pictures.

    clip, vision: None for no CLIP scores, and for the CLIP's features in place of the vision
        model's
    scores: of the published scores, by their names
    """

    clip: Clip | None
    vision: VisionModel | None
    scores: dict[str, Clip | VisionModel]


def load_models(config: Compare, base: StableDiffusion) -> Models:
    """Return the models that the parameters name. Errors: ClipError; VisionModelError."""
    vision = load_vision_model(config.features) if config.features else None
    return Models(load_clip(config.clip, base), vision, load_scores(config.parsed_scores))


def measure_quality(
    samples: SamplesByName, measured: MeasuredSet, models: Models, objective: str
) -> tuple[dict[str, dict], dict]:
    """Return what the pictures of each contender are worth, and what holds for all of them.

    samples: of the measured prompts
    """
    clip, vision, score_models = models
    prompts = measured.prompts
    rates, recovered = measure_caption_accuracy(samples, measured.captions, objective)
    reference = draw_references(measured.captions) if measured.captions else None
    clip_features = measure_features("scores", samples, clip) if clip else {}
    scores, reference_set = measure_scores(clip_features, prompts, clip, reference)
    features = measure_features("features", samples, vision) if vision else clip_features
    fidelity = measure_fidelity(samples, prompts, features)
    published, facts = measure_published_scores(score_models, samples, prompts, reference)
    quality = {}
    for name in samples:
        values = {"caption_first": rates.get(name), "fidelity": fidelity[name]}
        quality[name] = values | scores.get(name, {}) | {"scores": published[name]}
    model = vision or clip
    return quality, {
        "clip": clip.name if clip else None,
        "set": reference_set,
        "scores": facts,
        "measured_on": measured.source,
        "features": model.name if model else None,
        "guidance_recovered": recovered,
    }


def settings_of(sampler: Sampler, config: Compare) -> dict:
    """Return the base and the settings of a comparison, as results.json holds them."""
    base = sampler.base
    resolver = sampler.resolver
    sampling = resolver.sampling | {"steps": resolver.tuned_steps or config.steps}
    if config.scheduler:
        sampling["scheduler"] = config.scheduler
    return {
        "base": base.name,
        "base_origin": base.origin,
        "base_options": base.load_options,
        "base_hash": base.hash,
        "objective": resolver.objective,
        "whole_model": resolver.full_model,
        "sampling": sampling,
        "w_train": resolver.w_train,
        "negative": resolver.negative,
        "steps": config.steps,
        "resolution": sampler.resolution,
        "scheduler": config.scheduler or type(sampler.pipelines.pipe.scheduler).__name__,
        "adapter_scale": config.adapter_scale,
        "mixed_precision": config.mixed_precision,
        "precision_difference": sampler.pipelines.precision_difference,
        "seeds": config.seeds,
    }


def report_cut_prompts(prompts: Sequence[str], tokenizer: Any) -> list[dict]:
    """Print and return the prompts that the text encoder does not read to their end."""
    # verbose=False: transformers would warn of the same
    token_ids = tokenizer(list(prompts), verbose=False).input_ids
    limit = tokenizer.model_max_length
    cuts = []
    for prompt, ids in zip(prompts, token_ids, strict=True):
        if len(ids) > limit:
            cuts.append({"prompt": prompt, "tokens": len(ids), "read": limit})
    for cut in cuts[:MAX_CUTS]:
        start = cut["prompt"][:60]
        write_above_bar(
            f"the text encoder reads {limit} of the {cut['tokens']} tokens of {start!r}…"
        )
    # a file of prompts may have hundreds
    if len(cuts) > MAX_CUTS:
        write_above_bar(f"… and {limit} tokens of {len(cuts) - MAX_CUTS} other prompts")
    return cuts


@contextmanager
def sampling_bar(cache: SampleCache, n_pictures: int) -> Iterator[None]:
    """Show a progress bar over all pictures of the comparison, those on the disk too."""
    with progress_bar("compare", total=n_pictures, unit="picture", **BAR_OPTIONS) as bar:

        def on_batch(name, pictures):
            # the end of a long name: runs of one folder differ there
            label = name if len(name) <= MAX_NAME_LENGTH else f"…{name[1 - MAX_NAME_LENGTH :]}"
            # set_description draws the bar again, which a log would show as another line
            if bar.desc != f"{label}: ":
                bar.set_description(label)
            bar.update(pictures)

        cache.on_batch = on_batch
        yield
        cache.on_batch = lambda name, pictures: None
        bar.set_description("compare")


def sample_contenders(
    cache: SampleCache,
    settings: Sequence[SamplingSettings],
    prompts: list[str],
    seeds: list[int],
) -> SamplesByName:
    """Return every contender's pictures of the same prompts and seeds."""
    return {row.contender: cache.get_or_sample(row, prompts, seeds) for row in settings}
