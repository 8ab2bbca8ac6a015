"""The evaluation of a comparison: the pictures of every contender, and the numbers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np

from ..config import Compare
from ..picturebook.captions import Caption, held_out_captions
from ..picturebook.draw import draw_picture
from ..run.progress_bar import progress_bar, write_above_bar
from .measurements import (
    BAR_OPTIONS,
    SamplesByName,
    measure_caption_accuracy,
    measure_costs,
    measure_distances,
    measure_diversity,
    measure_scores,
)
from .metrics.clip import load_clip
from .metrics.effective_guidance import guidance_settings, measure_effective_guidance
from .sampling.grid import grid_cells, sample_grid
from .sampling.sample_cache import SampleCache
from .sampling.sampler import Sampler
from .sampling.settings import SamplingSettings, prompt_seed_pairs

CAPTION_SEEDS = 10_000  # seed of the first held-out caption's picture; the next ones follow
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
    results: dict  # the numbers and settings, as results.json holds them


def evaluate(cache: SampleCache, config: Compare) -> Evaluation:
    """Sample the contenders from the same noise, and measure them.

    Errors: ClipError; ValueError for an axis that changes no picture.
    """
    sampler = cache.sampler
    resolver = sampler.resolver
    clip = load_clip(config.clip, sampler.base)
    cuts = report_cut_prompts(config.prompts, sampler.base.tokenizer())
    cells = grid_cells(resolver, config)  # refuses axes before anything is sampled
    settings = [
        resolver.resolve(name, config.steps, config.adapter_scale) for name in config.contenders
    ]
    costs = measure_costs(sampler, settings, config)
    prompts, seeds = prompt_seed_pairs(config.prompts, config.seeds)
    captions = captions_for(sampler, config)
    texts = [caption.text for caption in captions]
    guided, tuned = guidance_settings(resolver, config)
    # a progress bar needs the number before the first picture
    n_pictures = len(settings) * (len(prompts) + len(texts))
    n_pictures += (len(guided) + len(tuned)) * len(prompts) + len(cells)
    effective_guidance = grid = reference = None
    with sampling_bar(cache, n_pictures):
        samples = sample_contenders(cache, settings, prompts, seeds)
        scored = samples
        if captions:
            caption_seeds = [CAPTION_SEEDS + index for index in range(len(captions))]
            scored = sample_contenders(cache, settings, texts, caption_seeds)
            reference = draw_references(captions)
        if tuned:
            effective_guidance = measure_effective_guidance(cache, guided, tuned, prompts, seeds)
        if cells:
            grid = sample_grid(cache, cells, config)
    # captions, if there are any: they are more pictures, and the CLIP knows their words
    rates, recovered = measure_caption_accuracy(scored, captions, resolver.objective)
    scores, reference_set = measure_scores(scored, texts or prompts, clip, reference)
    diversities = measure_diversity(samples, prompts)
    contenders = {}
    for name in config.contenders:
        values = {"caption_first": rates.get(name), "diversity": diversities[name]}
        contenders[name] = costs[name] | values | scores.get(name, {})
    results = settings_of(sampler, config) | {
        "contenders": contenders,
        "clip": clip.name if clip else None,
        "set": reference_set,
        "guidance_recovered": recovered,
        "to_guided": measure_distances(samples, prompts),
        "dial": effective_guidance,
        "time_ratio": costs["tuned"]["seconds"] / costs["guided"]["seconds"],
        "nfe_ratio": costs["tuned"]["nfe"] / costs["guided"]["nfe"],
        "cut_prompts": cuts,
    }
    return Evaluation(sampler, config, prompts, seeds, samples, grid, results)


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
            write_above_bar(
                f"the text encoder reads {limit} of the {len(ids)} tokens of {prompt[:60]!r}…"
            )
    return cuts


def captions_for(sampler: Sampler, config: Compare) -> list[Caption]:
    """Return the held-out captions to sample; only the embedded base knows their world."""
    # the captions describe scenes of the picture-book
    if sampler.base.name != "embedded" or not config.captions:
        return []
    return held_out_captions(config.captions)


def draw_references(captions: Sequence[Caption]) -> np.ndarray:
    """Return a picture of each caption as the data set draws them: uint8 [n, h, w, 3]."""
    # fixed seeds, so that every comparison measures from the same set
    scenes = [
        draw_picture(caption.scene, Random(f"real {index}"))
        for index, caption in enumerate(captions)
    ]
    return np.stack([np.asarray(scene) for scene in scenes])


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
