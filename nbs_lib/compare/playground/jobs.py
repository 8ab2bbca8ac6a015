"""Sampling jobs of the playground: every contender's pictures, or the reason why there are none."""

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any

import numpy as np

from ...config import Play
from ...files import value_hash
from ...images.convert import to_tensor
from ...models import BaseError
from ..sampling.long_prompts import no_truncation_warnings
from ..sampling.preview import LatentColours
from ..sampling.sample_cache import provenance
from ..sampling.sampler import Sampler, Samples
from ..sampling.settings import SamplingSettings, prompt_seed_pairs
from .gallery.rows import GalleryRow, Sample, cost_note
from .sampling_thread import StoppedError

STOPPED = "Stopped before it was finished."
# Seconds from one preview to the next: a fit product, a PNG and a message take 2 ms.
PREVIEW_SECONDS = 0.25


@dataclass(frozen=True)
class Watch:
    """The functions that a sampling calls at each step.

    check: raises StoppedError to end the sampling
    on_progress: takes the steps so far, the steps in all, and the task
    on_preview: takes a picture uint8 [h, w, 3] of the latents' size, and the task
    """

    check: Callable[[], None]
    on_progress: Callable[[int, int, str], None]
    on_preview: Callable[[np.ndarray, str], None]


def sample_rows(
    sampler: Sampler, request: Play, colours: LatentColours, watch: Watch
) -> list[GalleryRow]:
    """Return a row for each prompt and seed, sampled contender by contender.

    colours: of the previews; fitted to each contender's pictures
    """
    prompts, seeds = prompt_seed_pairs(request.prompts, request.seeds)
    pairs = zip(prompts, seeds, strict=True)
    rows = [GalleryRow(prompt, seed, request, {}) for prompt, seed in pairs]
    count = len(request.contenders)
    for number, name in enumerate(request.contenders, 1):
        task = f"{name} ({number} of {count})" if count > 1 else name
        samples = _sample_contender(sampler, request, name, colours, watch, task)
        for row, sample in zip(rows, samples, strict=True):
            row.samples[name] = sample
    return rows


def _sample_contender(sampler, request, name, colours, watch, task):
    """Return a contender's pictures, or as many times the reason why there are none."""
    prompts, seeds = prompt_seed_pairs(request.prompts, request.seeds)

    def on_step(step, n_steps):
        watch.check()
        watch.on_progress(step, n_steps, task)

    try:
        watch.check()  # a Stop before the first step ends it too
        with no_truncation_warnings():
            settings = resolve_contender(sampler, request, name)
            show = _preview(settings, colours, lambda picture: watch.on_preview(picture, task))
            batch = sampler.sample(settings, prompts, seeds, on_step, on_predicted=show)
        colours.fit(settings.model, batch.latents, batch.images)
        return to_samples(batch, provenance(sampler, settings))
    except StoppedError:
        reason = STOPPED
    except Exception as failure:
        # one contender's failure must not hide the others' pictures
        reason = describe_failure(failure)
    return [Sample(None, reason)] * len(prompts)


def _preview(settings, colours, on_preview):
    """Return a function of the predicted x_0, which shows the first picture of a batch."""
    last = monotonic()

    def show(predicted):
        nonlocal last
        # by time, not by steps: so a fast base is slowed no more than a slow one
        if monotonic() - last < PREVIEW_SECONDS:
            return
        last = monotonic()
        picture = colours.picture(settings.model, predicted[0])
        if picture is not None:
            on_preview(picture)

    return show


def fit_to_row(colours: LatentColours, sampler: Sampler, row: GalleryRow):
    """Fit the previews to the pictures of a row that was read, whose latents are gone."""
    images = np.stack([sample.image for sample in row.pictures[:1]])
    vae = sampler.pipelines.pipe.vae
    latents = sampler.base.encode(vae, to_tensor(images).to(vae.device, vae.dtype))
    colours.fit(None, latents.float().cpu(), images)


def resolve_contender(sampler: Sampler, request: Play, name: str) -> SamplingSettings:
    """Return the settings of one of the request's contenders. Errors: see `SettingsResolver`."""
    size = (request.width, request.height)
    trained = sampler.sizes.trained
    return sampler.resolver.resolve(
        name,
        request.steps,
        scheduler=request.scheduler,
        negative=request.negative,
        # None for the usual size, so that its pictures are the comparison's
        size=None if size == (trained, trained) else size,
    )


def resolve_contenders(sampler: Sampler, request: Play) -> dict[str, SamplingSettings]:
    """Return the settings of the request's contenders by name. Errors: see `SettingsResolver`."""
    return {name: resolve_contender(sampler, request, name) for name in request.contenders}


def provenance_hash(sampler: Sampler, settings: SamplingSettings) -> str:
    """Return a short hash of everything that pictures with these settings depend on."""
    return value_hash(provenance(sampler, settings))[:16]


def draw_one(
    sampler: Sampler,
    check: Callable[[], None],
    settings: dict[str, SamplingSettings],
    name: str,
    prompt: str,
    seed: int,
) -> np.ndarray:
    """Return one picture of a blind test. name: of the contender among `settings`."""
    with no_truncation_warnings():
        return sampler.sample(settings[name], [prompt], [seed], lambda *_: check()).images[0]


def to_samples(batch: Samples, settings: dict[str, Any]) -> list[Sample]:
    """Return each picture of a contender with its cost and its settings."""
    seconds = round(batch.seconds, 3)
    note = cost_note(batch.nfe, seconds)
    # saved with the picture, beside its settings
    metadata = settings | {"nfe": batch.nfe, "seconds": seconds}
    return [Sample(image, note, metadata) for image in batch.images]


def describe_failure(failure: Exception) -> str:
    """Return a failure as a sentence for the page, because nobody sees a thread's traceback."""
    if isinstance(failure, ValueError | FileNotFoundError | BaseError):
        return str(failure)  # refusals are sentences already
    return f"Sampling failed: {type(failure).__name__}: {failure}"
