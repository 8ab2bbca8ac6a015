"""The four measurements of a comparison.

costs             UNet evaluations, seconds and memory
caption accuracy  how often a picture fits its own held-out caption best
scores            CLIP score, FID and KID
distances         latent MSE, SSIM and PSNR to the guided pictures
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

from ..config import Compare
from ..config.contenders import CONTENDERS
from ..models import embedded_clip, find_base
from ..picturebook.caption_ranking import caption_first
from ..picturebook.captions import Caption
from ..run.progress_bar import progress_bar
from .metrics.clip import Clip
from .metrics.confidence import (
    bootstrap_interval,
    by_prompt,
    set_intervals,
    sums_by_prompt,
    wilson,
    with_interval,
)
from .metrics.image_metrics import (
    clip_score,
    latent_mse,
    psnr,
    recovered_by_picture,
    squared_error,
    ssim,
)
from .sampling.sample_cache import CachedSamples
from .sampling.sampler import Sampler
from .sampling.settings import SamplingSettings, prompt_seed_pairs

REPETITIONS = 3
"""Rounds of timing; the median counts."""
MIN_SET_SIZE = 4
"""Pictures of a set, for FID and KID."""
BAR_OPTIONS = {"mininterval": 5, "ncols": 88}
SamplesByName = Mapping[str, CachedSamples]


def counted(desc: str, items: Iterable[Any], unit: str) -> Iterable[Any]:
    """Return the items with a progress bar that counts them."""
    return progress_bar(desc, iterable=items, unit=unit, **BAR_OPTIONS)


def measure_costs(
    sampler: Sampler, settings: Mapping[str, SamplingSettings], config: Compare
) -> dict[str, dict[str, Any]]:
    """Return NFE, seconds a picture (median, least, most) and memory by contender.

    All sample the same batch in turns, so that a busy machine slows all of them.
    """
    prompts, seeds = prompt_seed_pairs(config.prompts, config.seeds)
    size = sampler.batch_size
    rounds = []
    for _ in counted("timing", range(REPETITIONS), "round"):
        rounds.append(
            {
                name: sampler.sample(own, prompts[:size], seeds[:size])
                for name, own in settings.items()
            }
        )
    costs = {}
    for name in settings:
        timings = [samples[name] for samples in rounds]
        seconds = [samples.seconds for samples in timings]
        costs[name] = {
            "nfe": timings[-1].nfe,
            "seconds": median(seconds),
            "seconds_low": min(seconds),
            "seconds_high": max(seconds),
            "memory_mib": round(max(samples.memory_mib for samples in timings), 1),
            "memory_kind": timings[-1].memory_kind,
        }
    return costs


def measure_caption_accuracy(
    samples: SamplesByName, captions: Sequence[Caption], objective: str
) -> tuple[dict[str, dict[str, Any] | None], dict[str, Any] | None]:
    """Return the caption accuracy by contender, and the guidance recovered.

    The rates are None without captions. The recovered guidance is None too for the objective
    `finetune`, which learns images, not guidance, and if guidance gains nothing.
    """
    if not captions:
        return dict.fromkeys(samples), None
    clip = embedded_clip()
    tokenizer = find_base("embedded").tokenizer()
    texts = [caption.text for caption in captions]  # a caption may come twice
    hits = {}
    for name, own in counted("captions", samples.items(), "contender"):
        hits[name] = caption_first(own.images, captions, clip, tokenizer).numpy()
    rates = {name: _rate(own, texts) for name, own in hits.items()}
    three = [hits[name] for name in CONTENDERS]
    recovered = recovered_by_picture(*three)
    if recovered is None or objective == "finetune":
        return rates, None
    sums = [sums_by_prompt(own, texts)[0] for own in three]
    low, high = bootstrap_interval(sums, recovered_by_picture)
    return rates, {"value": recovered, "low": low, "high": high}


def _rate(hits: np.ndarray, texts: Sequence[str]) -> dict[str, Any]:
    """Return the share of hits with its interval."""
    n_hits = int(hits.sum())
    if 0 < n_hits < len(hits):
        low, high = bootstrap_interval(
            sums_by_prompt(hits, texts), lambda sums, counts: sums.sum() / counts.sum()
        )
    else:
        # all resamples are equal, and a bootstrap's interval would be one point
        low, high = wilson(n_hits, len(hits))
    return {"rate": float(hits.mean()), "low": low, "high": high, "count": len(hits)}


def measure_scores(
    samples: SamplesByName, prompts: Sequence[str], clip: Clip | None, reference: np.ndarray | None
) -> tuple[dict[str, dict[str, Any]], dict[str, Any] | None]:
    """Return clip_score, fid and kid by contender, in the CLIP's space, and the set these refer to.

    clip: None for no scores
    reference: pictures of the data for these prompts, uint8 [n, h, w, 3]; None for guided's, from
        which guided itself has no distance
    """
    if clip is None:
        return {}, None
    texts = clip.text_features(prompts)
    features = {}
    for name, own in counted("scores", samples.items(), "contender"):
        features[name] = clip.image_features(own.images)
    reference_features = features["guided"]
    if reference is not None:
        reference_features = clip.image_features(reference)
    scores = {}
    for name, own in features.items():
        is_reference = reference is None and name == "guided"
        distances = {"fid": None, "kid": None}
        if len(prompts) >= MIN_SET_SIZE and not is_reference:
            distances = set_intervals(own, reference_features, prompts)
        scores[name] = {"clip_score": with_interval(clip_score(own, texts), prompts)} | distances
    source = "guided" if reference is None else "the data"
    return scores, {"of": source, "pictures": len(prompts)}


def measure_distances(samples: SamplesByName, prompts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return each contender's distances to the guided pictures, with their intervals."""
    return {
        name: _distances(own, samples["guided"], prompts)
        for name, own in samples.items()
        if name != "guided"
    }


def _distances(a: CachedSamples, b: CachedSamples, prompts: Sequence[str]) -> dict[str, Any]:
    if a.latents.shape != b.latents.shape or a.images.shape != b.images.shape:
        # another pipeline's pictures may have another size
        return {"latent_mse": None, "ssim": None, "psnr": None, "intervals": {}}
    latents = with_interval(latent_mse(a.latents, b.latents), prompts)
    similarity = with_interval(ssim(a.images, b.images), prompts)
    errors = by_prompt(squared_error(a.images, b.images), prompts)
    decibels = psnr(errors)
    return {
        "latent_mse": latents["value"],
        "ssim": similarity["value"],
        "psnr": decibels if math.isfinite(decibels) else None,  # JSON has no infinity
        "intervals": {
            "latent_mse": [latents["low"], latents["high"]],
            "ssim": [similarity["low"], similarity["high"]],
            "psnr": list(bootstrap_interval(errors, psnr)),
        },
    }
