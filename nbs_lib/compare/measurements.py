"""The five measurements of a comparison.

costs             denoiser evaluations, seconds and memory
caption accuracy  how often a picture fits its own held-out caption best
scores            CLIP score, FID and KID
diversity         distances between the pictures of one prompt
fidelity          distances to the guided pictures
"""

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np
import torch

from ..config import Compare
from ..config.contenders import CONTENDERS
from ..models import embedded_clip, find_base
from ..picturebook.caption_ranking import caption_ranked_first
from ..picturebook.captions import Caption
from ..run.progress_bar import progress_bar
from .metrics.clip import Clip
from .metrics.confidence import (
    bootstrap_interval,
    rate_with_interval,
    set_intervals,
    sums_by_prompt,
    with_interval,
)
from .metrics.fidelity import feature_distance, ratio_with_interval
from .metrics.image_metrics import (
    clip_score,
    diversity,
    latent_mse,
    recovered_by_picture,
    ssim,
)
from .metrics.vision import VisionModel
from .sampling.sample_cache import CachedSamples
from .sampling.sampler import Sampler
from .sampling.settings import SamplingSettings, prompt_seed_pairs

REPETITIONS = 3  # rounds of timing; the median counts
MIN_SET_SIZE = 4  # pictures of a set, for FID and KID
BAR_OPTIONS = {"mininterval": 5, "ncols": 88}
SamplesByName = Mapping[str, CachedSamples]
Features = Mapping[str, torch.Tensor]  # of pictures, on the unit sphere [n, d], by contender


def counted(
    desc: str,
    items: Iterable[Any],
    unit: str,
) -> Iterable[Any]:
    """Return the items with a progress bar that counts them."""
    return progress_bar(desc, iterable=items, unit=unit, **BAR_OPTIONS)


def measure_costs(
    sampler: Sampler, settings: Sequence[SamplingSettings], config: Compare
) -> dict[str, dict]:
    """Return NFE, seconds a picture (median, least, most) and memory by contender."""
    prompts, seeds = prompt_seed_pairs(config.prompts, config.seeds)
    batch = slice(0, sampler.batch_size)
    timings = {row.contender: [] for row in settings}
    for _ in counted("timing", range(REPETITIONS), "round"):
        # in turns, so that a machine that is busy for a while slows all contenders
        for row in settings:
            timings[row.contender].append(sampler.sample(row, prompts[batch], seeds[batch]))
    costs = {}
    for name, rounds in timings.items():
        seconds = [samples.seconds for samples in rounds]
        costs[name] = {
            # counted, so it is the same in each round
            "nfe": rounds[-1].nfe,
            "seconds": median(seconds),
            "seconds_low": min(seconds),
            "seconds_high": max(seconds),
            "memory_mib": round(max(samples.memory_mib for samples in rounds), 1),
            "memory_kind": rounds[-1].memory_kind,
        }
    return costs


def measure_caption_accuracy(
    samples: SamplesByName,
    captions: Sequence[Caption],
    objective: str,
) -> tuple[dict[str, dict], dict | None]:
    """Return the caption accuracy by contender, and the guidance recovered.

    There are no rates without captions. The recovered guidance is None without captions, for the
    objective `finetune`, and if guidance gains nothing.
    """
    if not captions:
        return {}, None
    clip = embedded_clip()
    tokenizer = find_base("embedded").tokenizer()
    texts = [caption.text for caption in captions]
    hits, rates = {}, {}
    for name, cached in counted("captions", samples.items(), "contender"):
        hits[name] = caption_ranked_first(cached.images, captions, clip, tokenizer).numpy()
        rates[name] = rate_with_interval(hits[name], texts)
    # fine-tuning learns images, not guidance
    recovered = None if objective == "finetune" else _recovered(hits, texts)
    return rates, recovered


def _recovered(hits, texts):
    """Return the guidance recovered with its interval."""
    three = [hits[name] for name in CONTENDERS]
    value = recovered_by_picture(*three)
    if value is None:
        return None
    # by prompt, because a caption may come twice
    sums = [sums_by_prompt(values, texts)[0] for values in three]
    low, high = bootstrap_interval(sums, recovered_by_picture)
    return {"value": value, "low": low, "high": high}


def measure_features(desc: str, samples: SamplesByName, model: Clip | VisionModel) -> Features:
    """Return each contender's features. desc: of the progress bar."""
    features = {}
    for name, cached in counted(desc, samples.items(), "contender"):
        features[name] = model.image_features(cached.images)
    return features


def measure_scores(
    features: Features, prompts: Sequence[str], clip: Clip | None, reference: np.ndarray | None
) -> tuple[dict[str, dict], dict | None]:
    """Return clip_score, fid and kid by contender, in the CLIP's space, and the set these refer to.

    features: of each contender's pictures, by the CLIP
    clip: None for no scores
    reference: pictures of the data for these prompts, uint8 [n, h, w, 3]; None for guided's
    """
    if clip is None:
        return {}, None
    texts = clip.text_features(prompts)
    source = "guided"
    reference_features = features["guided"]
    if reference is not None:
        source = "the data"
        reference_features = clip.image_features(reference)
    scores = {}
    for name, images in features.items():
        distances = {"fid": None, "kid": None}
        # the guided pictures have no distance from themselves
        if len(prompts) >= MIN_SET_SIZE and name != source:
            distances = set_intervals(images, reference_features, prompts)
        score = with_interval(clip_score(images, texts), prompts)
        scores[name] = {"clip_score": score} | distances
    return scores, {"of": source, "pictures": len(prompts)}


def measure_diversity(samples: SamplesByName, prompts: Sequence[str]) -> dict[str, dict | None]:
    """Return each contender's diversity with its interval, None without two seeds of a prompt."""
    diversities = {}
    for name, cached in samples.items():
        values, several = diversity(cached.latents, prompts)
        diversities[name] = with_interval(values, several) if several else None
    return diversities


def measure_fidelity(
    samples: SamplesByName, prompts: Sequence[str], features: Features
) -> dict[str, dict | None]:
    """Return each contender's fidelity to guided, None for guided itself.

    count                   pictures, each beside guided's of the same prompt and seed
    latent_mse              mean squared difference of final latents
    distance_ratio          its mean over that of unguided, see `metrics.fidelity.distance_ratio`
    nearer                  share of pictures with a lower latent_mse than unguided's
    ssim                    structural similarity
    feature_distance_ratio  as distance_ratio, by the cosine of features

    Each but the count has its interval, and is None where it is not defined.
    features: of each contender's pictures, {} for none
    """
    fidelity = {}
    for name in counted("fidelity", samples, "contender"):
        measured = None if name == "guided" else _fidelity(name, samples, prompts)
        if measured and features:
            own = feature_distance(features[name], features["guided"])
            baseline = feature_distance(features["unguided"], features["guided"])
            measured["feature_distance_ratio"] = ratio_with_interval(own, baseline, prompts)
        fidelity[name] = measured
    return fidelity


def _fidelity(name, samples, prompts):
    a, b, unguided = (samples[other] for other in (name, "guided", "unguided"))
    names = ("latent_mse", "distance_ratio", "nearer", "ssim", "feature_distance_ratio")
    fidelity = {"count": len(prompts)} | dict.fromkeys(names)
    # another pipeline's pictures may have another size
    if a.latents.shape != b.latents.shape or a.images.shape != b.images.shape:
        return fidelity
    distances, baseline = (latent_mse(other.latents, b.latents) for other in (a, unguided))
    fidelity |= {
        "latent_mse": with_interval(distances, prompts),
        "distance_ratio": ratio_with_interval(distances, baseline, prompts),
        "ssim": with_interval(ssim(a.images, b.images), prompts),
    }
    # unguided is the yardstick itself
    if name != "unguided":
        fidelity["nearer"] = rate_with_interval(distances < baseline, prompts)
    return fidelity
