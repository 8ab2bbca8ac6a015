"""The numbers of a comparison: what each contender costs, and what its pictures are worth."""

import math
from collections.abc import Sequence
from random import Random
from statistics import median
from typing import Any

import numpy as np

from ..config import Compare
from ..config.contenders import CONTENDERS
from ..models import embedded_clip, find_base
from ..picturebook.captions import Caption, held_out_captions
from ..picturebook.draw import draw_picture
from .metrics.clip import Clip
from .metrics.confidence import (
    bootstrap_interval,
    by_prompt,
    set_interval,
    sums_by_prompt,
    with_interval,
)
from .metrics.image_metrics import (
    caption_ranked_first,
    clip_score,
    latent_mse,
    psnr,
    recovered_by_picture,
    squared_error,
    ssim,
)
from .playground.votes import wilson
from .progress import steps
from .sampling.sample_cache import CachedSamples, SampleCache
from .sampling.sampler import Sampler

REPETITIONS = 3
"""How often the timed batch is sampled; the median counts."""
CAPTION_SEEDS = 10_000
"""Seed of the first held-out caption's picture; the next ones follow."""
FEWEST = 4
"""Pictures of a set, at least."""


def profile_contenders(sampler: Sampler, config: Compare) -> dict[str, dict[str, Any]]:
    """NFE, seconds a picture (median, least and most) and memory of each contender, on one batch that they sample in turns.

    What a first pass takes more is left out by the sampler, see `Sampler.sample_way`.
    """
    pairs = [(prompt, seed) for seed in config.seeds for prompt in config.prompts][
        : sampler.batch_size
    ]
    batch = [prompt for prompt, _ in pairs], [seed for _, seed in pairs]
    rounds = [
        {
            name: sampler.sample(name, *batch, config.steps, config.adapter_scale)
            for name in config.contenders
        }
        for _ in steps("timing", range(REPETITIONS), "round")
    ]
    last, told = rounds[-1], {}
    for name in config.contenders:
        seconds = [each[name].seconds for each in rounds]
        told[name] = {
            "nfe": last[name].nfe,
            "seconds": median(seconds),
            "seconds_low": min(seconds),
            "seconds_high": max(seconds),
            "memory_mib": round(max(each[name].memory_mib for each in rounds), 1),
            "memory_kind": last[name].memory_kind,
        }
    return told


def distance(a: CachedSamples, b: CachedSamples, prompts: Sequence[str]) -> dict[str, Any]:
    """How far pictures are from others, each number with its interval; a PSNR that is infinite is None, for JSON has no such
    number, and so is all of what pictures of another size are."""
    if a.latents.shape != b.latents.shape or a.images.shape != b.images.shape:
        return {"latent_mse": None, "ssim": None, "psnr": None, "intervals": {}}
    found = {"latent_mse": latent_mse(a.latents, b.latents), "ssim": ssim(a.images, b.images)}
    found = {name: with_interval(values, prompts) for name, values in found.items()}
    errors = by_prompt(squared_error(a.images, b.images), prompts)
    low, high = bootstrap_interval(errors, psnr)
    decibels = psnr(errors)
    intervals = {name: [told["low"], told["high"]] for name, told in found.items()} | {
        "psnr": [low, high]
    }
    return {
        **{name: told["value"] for name, told in found.items()},
        "psnr": decibels if math.isfinite(decibels) else None,
        "intervals": intervals,
    }


def caption_accuracy(
    drawn: dict[str, CachedSamples], captions: Sequence[Caption], objective: str
) -> tuple[dict[str, dict[str, Any]], dict[str, Any] | None]:
    """How often each contender's picture of a held-out caption is told from its near misses, and the guidance recovered.

    Where all are right, or none is, every draw of a bootstrap is like the others: the interval is Wilson's then.
    """
    clip, tokenizer = embedded_clip(), find_base("embedded").tokenizer()
    texts = [caption.text for caption in captions]  # one may be asked for more than once
    shown = steps("captions", drawn.items(), "contender")
    first = {
        name: caption_ranked_first(each.images, captions, clip, tokenizer).numpy()
        for name, each in shown
    }
    rates = {}
    for name, right in first.items():
        hits, count = int(right.sum()), len(right)
        low, high = wilson(hits, count)
        if 0 < hits < count:
            low, high = bootstrap_interval(
                sums_by_prompt(right, texts), lambda hits, of: hits.sum() / of.sum()
            )
        rates[name] = {"rate": float(right.mean()), "low": low, "high": high, "count": count}
    three = [first[name] for name in CONTENDERS]
    recovered = recovered_by_picture(*three)
    if recovered is None or objective == "finetune":  # which is to learn images, not guidance
        return rates, None
    low, high = bootstrap_interval(
        [sums_by_prompt(each, texts)[0] for each in three], recovered_by_picture
    )
    return rates, {"value": recovered, "low": low, "high": high}


def score_contenders(
    drawn: dict[str, CachedSamples], prompts: Sequence[str], clip: Clip, real: np.ndarray | None
) -> dict[str, dict[str, Any]]:
    """By contender: clip_score, and fid and kid to a set of as many pictures of the same prompts, in the CLIP's space.

    real: pictures of the data for these prompts; without any, guided's are the set, and guided itself has no distance.
    """
    texts = clip.of_texts(prompts)
    seen = {
        name: clip.of_images(each.images)
        for name, each in steps("scores", drawn.items(), "contender")
    }
    of = seen["guided"] if real is None else clip.of_images(real)
    told = {}
    for name, features in seen.items():
        sets = dict.fromkeys(("fid", "kid"))
        if len(prompts) >= FEWEST and not (real is None and name == "guided"):
            sets = set_interval(features, of, prompts)
        told[name] = {"clip_score": with_interval(clip_score(features, texts), prompts), **sets}
    return told


def captions_of(sampler: Sampler, config: Compare) -> int:
    """How many held-out captions every contender draws: they are the embedded base's alone."""
    return config.captions if sampler.base.name == "embedded" else 0


def draw_captions(
    kept: SampleCache, config: Compare
) -> tuple[list[Caption], dict[str, CachedSamples], np.ndarray]:
    """Held-out captions, every contender's pictures of them, and the pictures that the data has of such."""
    captions = held_out_captions(config.captions)
    texts, seeds = (
        [caption.text for caption in captions],
        [CAPTION_SEEDS + i for i in range(len(captions))],
    )
    drawn = {
        name: kept.sample(name, texts, seeds, config.steps, config.adapter_scale)
        for name in config.contenders
    }
    real = np.stack(
        [
            np.asarray(draw_picture(caption.scene, Random(f"real {i}")))
            for i, caption in enumerate(captions)
        ]
    )
    return captions, drawn, real


def cut_prompts(prompts: Sequence[str], tokenizer: Any) -> list[dict[str, Any]]:
    """The prompts that the text encoder does not read to their end, and how many tokens they have."""
    lengths = [len(ids) for ids in tokenizer(list(prompts), verbose=False).input_ids]
    most = tokenizer.model_max_length
    return [
        {"prompt": prompt, "tokens": n, "read": most}
        for prompt, n in zip(prompts, lengths, strict=True)
        if n > most
    ]
