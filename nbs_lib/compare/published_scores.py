"""The scores that the field reports beside CLIP's: PickScore, HPS v2.1, CMMD and FD-DINOv2.

Each has its own model, which the parameter `scores` names. Two judge a picture by its prompt, two
are distances of a contender's pictures, as a set, from the reference set.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .measurements import MIN_SET_SIZE, SamplesByName, counted
from .metrics.clip import Clip, load_scoring_clip
from .metrics.confidence import set_interval, with_interval
from .metrics.image_metrics import cmmd, fid, joint_coordinates
from .metrics.vision import VisionModel, load_vision_model

Model = Clip | VisionModel


@dataclass(frozen=True)
class PublishedScore:
    """A score of contenders.

    better: "higher" or "lower"
    measure: takes features of pictures and the other side's, and the prompts; returns value, low,
        high
    by_prompt: True if the other side is the prompts' own features, False for the reference set
    """

    title: str
    better: str
    load: Callable[[str, str], Model]
    measure: Callable[[Model, torch.Tensor, torch.Tensor, Sequence[str]], dict]
    by_prompt: bool


def load_scores(models: Mapping[str, str]) -> dict[str, Model]:
    """Return the model of each score. models: folder or hub id by score.

    Errors: ClipError; VisionModelError.
    """
    return {name: SCORES[name].load(model, f"scores {name}") for name, model in models.items()}


def measure_published_scores(
    models: Mapping[str, Model],
    samples: SamplesByName,
    prompts: Sequence[str],
    reference: np.ndarray | None,
) -> tuple[dict[str, dict], dict[str, dict]]:
    """Return value, low, high and count of each score by contender, and what each score is.

    A contender has None for a distance from itself, or of too few pictures.
    reference: pictures of the data for these prompts, uint8 [n, h, w, 3]; None for guided's
    """
    rows: dict[str, dict[str, Any]] = {name: {} for name in samples}
    facts = {}
    for name, model in models.items():
        score = SCORES[name]
        features = {}
        for contender, cached in counted(score.title, samples.items(), "contender"):
            features[contender] = _image_features(model, cached.images)
        source, other = _other_side(score, model, features, prompts, reference)
        for contender, images in features.items():
            # guided has no distance from itself
            measurable = contender != source and (source is None or len(prompts) >= MIN_SET_SIZE)
            rows[contender][name] = None
            if measurable:
                measured = score.measure(model, images, other, prompts)
                rows[contender][name] = measured | {"count": len(prompts)}
        facts[name] = {"title": score.title, "better": score.better, "model": model.name}
        facts[name]["of"] = source
    return rows, facts


def _other_side(score, model, features, prompts, reference):
    """Return the set that a distance refers to, None for prompts, and the other side's features."""
    if score.by_prompt:
        return None, model.text_features(prompts)
    if reference is None:
        return "guided", features["guided"]
    return "the data", _image_features(model, reference)


def _image_features(model: Model, images: np.ndarray) -> torch.Tensor:
    # a Fréchet distance is of the features as they are, not of their directions
    return model.pooled(images) if isinstance(model, VisionModel) else model.image_features(images)


def _pickscore(clip, images, texts, prompts):
    # the factor that its authors train and report it with
    scale = float(clip.model.logit_scale.detach().exp())
    return with_interval(scale * _cosines(images, texts), prompts)


def _hps(clip, images, texts, prompts):
    # the benchmark's tables have 100 times the cosine
    return with_interval(100 * _cosines(images, texts), prompts)


def _cosines(images, texts):
    return (images * texts).sum(1).double().numpy()


def _cmmd(clip, images, other, prompts):
    return set_interval(lambda rows: cmmd(images[rows], other[rows]), prompts)


def _frechet(vision, images, other, prompts):
    a, b = joint_coordinates(images, other)
    return set_interval(lambda rows: fid(a[rows], b[rows]), prompts)


SCORES = {
    "pickscore": PublishedScore("PickScore", "higher", load_scoring_clip, _pickscore, True),
    "hpsv2.1": PublishedScore("HPS v2.1", "higher", load_scoring_clip, _hps, True),
    "cmmd": PublishedScore("CMMD", "lower", load_scoring_clip, _cmmd, False),
    "fd_dinov2": PublishedScore("FD-DINOv2", "lower", load_vision_model, _frechet, False),
}
