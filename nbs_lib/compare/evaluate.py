"""The evaluation of a comparison: the pictures of every contender, and the numbers."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np

from ..config import Compare
from ..picturebook.captions import Caption, held_out_captions
from ..picturebook.draw import draw
from ..run.progress_bar import progress_bar, write_above_bar
from .measurements import (
    BAR_OPTIONS,
    SamplesByName,
    measure_caption_accuracy,
    measure_costs,
    measure_distances,
    measure_scores,
)
from .metrics.clip import load_clip
from .metrics.effective_guidance import guidance_settings, measure_effective_guidance
from .sampling.grid import grid_cells, sample_grid
from .sampling.sample_cache import SampleCache
from .sampling.sampler import Sampler
from .sampling.settings import SamplingSettings, prompt_seed_pairs

CAPTION_SEEDS = 10_000
"""Seed of the first held-out caption's picture; the next ones follow."""
MAX_NAME_LENGTH = 24
"""Letters of a contender's name beside a progress bar."""


@dataclass(frozen=True)
class Evaluation:
    """The pictures and the numbers of a comparison.

    prompts, seeds: of each picture
    samples: pictures by contender
    contenders: costs, caption accuracy and scores by contender
    to_guided: distances to the guided pictures by contender
    guidance_recovered, effective_guidance: None if not measured
    grid: uint8 [parts, rows, columns, h, w, 3], None without axes
    clip: name of the CLIP that scored, None without one
    reference_set: the set that FID and KID measure the distance from
    cut_prompts: prompts that the text encoder cuts
    """

    sampler: Sampler
    config: Compare
    prompts: list[str]
    seeds: list[int]
    samples: SamplesByName
    contenders: dict[str, dict[str, Any]]
    to_guided: dict[str, dict[str, Any]]
    guidance_recovered: dict[str, Any] | None
    effective_guidance: dict[str, Any] | None
    grid: np.ndarray | None
    clip: str | None
    reference_set: dict[str, Any] | None
    cut_prompts: list[dict[str, Any]]


def evaluate(cache: SampleCache, config: Compare) -> Evaluation:
    """Sample the contenders from the same noise, and measure them.

    Errors: ClipError; ValueError for an axis that changes no picture.
    """
    sampler = cache.sampler
    resolver = sampler.resolver
    clip = load_clip(config.clip, sampler.base)
    cuts = report_cut_prompts(config.prompts, sampler.base.tokenizer())
    cells = grid_cells(resolver, config)  # refuses axes before anything is sampled
    settings = {
        name: resolver.resolve(name, config.steps, config.adapter_scale)
        for name in config.contenders
    }
    costs = measure_costs(sampler, settings, config)
    prompts, seeds = prompt_seed_pairs(config.prompts, config.seeds)
    captions = captions_for(sampler, config)
    texts = [caption.text for caption in captions]
    caption_seeds = [CAPTION_SEEDS + index for index in range(len(captions))]
    guided, tuned = guidance_settings(resolver, config)
    n_pictures = len(settings) * (len(prompts) + len(texts))
    n_pictures += (len(guided) + len(tuned)) * len(prompts) + len(cells)
    effective_guidance = grid = reference = None
    with sampling_bar(cache, n_pictures):
        samples = sample_contenders(cache, settings, prompts, seeds)
        scored = samples
        if captions:
            scored = sample_contenders(cache, settings, texts, caption_seeds)
            reference = draw_references(captions)
        if tuned:
            effective_guidance = measure_effective_guidance(cache, guided, tuned, prompts, seeds)
        if cells:
            grid = sample_grid(cache, cells, config)
    rates, recovered = measure_caption_accuracy(scored, captions, resolver.objective)
    scores, reference_set = measure_scores(scored, texts or prompts, clip, reference)
    contenders = {
        name: costs[name] | {"caption_first": rates[name]} | scores.get(name, {})
        for name in settings
    }
    return Evaluation(
        sampler=sampler,
        config=config,
        prompts=prompts,
        seeds=seeds,
        samples=samples,
        contenders=contenders,
        to_guided=measure_distances(samples, prompts),
        guidance_recovered=recovered,
        effective_guidance=effective_guidance,
        grid=grid,
        clip=clip.name if clip else None,
        reference_set=reference_set,
        cut_prompts=cuts,
    )


def report_cut_prompts(prompts: Sequence[str], tokenizer: Any) -> list[dict[str, Any]]:
    """Print and return the prompts that the text encoder does not read to their end."""
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
    if sampler.base.name != "embedded" or not config.captions:
        return []
    return held_out_captions(config.captions)


def draw_references(captions: Sequence[Caption]) -> np.ndarray:
    """Return a picture of each caption as the data set draws them: uint8 [n, h, w, 3]."""
    scenes = [
        draw(caption.scene, Random(f"real {index}")) for index, caption in enumerate(captions)
    ]
    return np.stack([np.asarray(scene) for scene in scenes])


@contextmanager
def sampling_bar(cache: SampleCache, n_pictures: int) -> Iterator[None]:
    """Show a progress bar over all pictures of the comparison, those on the disk too."""
    with progress_bar("compare", total=n_pictures, unit="picture", **BAR_OPTIONS) as bar:

        def on_batch(name: str, pictures: int):
            label = name if len(name) <= MAX_NAME_LENGTH else f"…{name[1 - MAX_NAME_LENGTH :]}"
            if bar.desc != f"{label}: ":
                bar.set_description(label)
            bar.update(pictures)

        cache.on_batch = on_batch
        yield
        cache.on_batch = lambda name, pictures: None
        bar.set_description("compare")


def sample_contenders(
    cache: SampleCache,
    settings: Mapping[str, SamplingSettings],
    prompts: list[str],
    seeds: list[int],
) -> SamplesByName:
    """Return every contender's pictures of the same prompts and seeds."""
    return {name: cache.get_or_sample(own, prompts, seeds) for name, own in settings.items()}
