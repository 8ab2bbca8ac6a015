"""Sampling jobs of the playground: every contender's pictures, or the reason why there are none."""

from collections.abc import Callable
from typing import Any

from ...config import Play
from ...models import BaseError, StableDiffusion
from ..sampling.long_prompts import no_truncation_warnings
from ..sampling.sample_cache import provenance
from ..sampling.sampler import Sampler, Samples
from ..sampling.settings import SamplingSettings, prompt_seed_pairs
from .gallery import Sample
from .sampling_thread import StoppedError

STOPPED = "Stopped before it was finished."
PromptSamples = tuple[str, int, dict[str, Sample]]
"""Prompt, seed, and the samples by contender."""


def sample_contenders(
    sampler: Sampler,
    request: Play,
    check: Callable[[], None],
    on_progress: Callable[[int, int, str], None],
) -> list[PromptSamples]:
    """Return the samples of each prompt and seed, sampled contender by contender.

    check: called after each step; raises StoppedError to end the sampling
    on_progress: called with the steps so far, the steps in all, and the task
    """
    prompts, seeds = prompt_seed_pairs(request.prompts, request.seeds)
    samples: dict[str, list[Sample]] = {}
    count = len(request.contenders)
    for number, name in enumerate(request.contenders, 1):
        task = f"{name} ({number} of {count})" if count > 1 else name

        def watch(step: int, n_steps: int, task: str = task):
            check()
            on_progress(step, n_steps, task)

        try:
            check()
            with no_truncation_warnings():
                settings = resolve_contender(sampler, request, name)
                batch = sampler.sample(settings, prompts, seeds, watch)
            samples[name] = to_samples(batch, provenance(sampler, settings))
        except StoppedError:
            samples[name] = [Sample(None, STOPPED)] * len(prompts)
        except Exception as failure:  # one contender's failure must not hide the others' pictures
            samples[name] = [Sample(None, describe_failure(failure))] * len(prompts)
    return [
        (prompt, seed, {name: own[index] for name, own in samples.items()})
        for index, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True))
    ]


def resolve_contender(sampler: Sampler, request: Play, name: str) -> SamplingSettings:
    """Return the settings of one of the request's contenders. Errors: see `SettingsResolver`."""
    return sampler.resolver.resolve(name, request.steps, scheduler=request.scheduler)


def to_samples(batch: Samples, settings: dict[str, Any]) -> list[Sample]:
    """Return each picture of a contender with its cost and its settings."""
    note = f"{batch.nfe:g} UNet passes, {batch.seconds:.2f}\u00a0s"
    metadata = settings | {"nfe": batch.nfe, "seconds": round(batch.seconds, 3)}
    return [Sample(image, note, metadata) for image in batch.images]


def describe_failure(failure: Exception) -> str:
    """Return a failure as a sentence for the page, because nobody sees a thread's traceback."""
    if isinstance(failure, ValueError | FileNotFoundError | BaseError):
        return str(failure)  # refusals are sentences already
    return f"Sampling failed: {type(failure).__name__}: {failure}"


def truncation_note(prompts: list[str], base: StableDiffusion) -> str:
    """Return a sentence if the text encoder does not read all of a prompt, or else ""."""
    tokenizer = base.tokenizer()
    limit = tokenizer.model_max_length
    longest = max(len(tokenizer(prompt, verbose=False).input_ids) for prompt in prompts)
    if longest <= limit:
        return ""
    return (
        f"The text encoder reads {limit} tokens, and the prompt has {longest}: "
        "its end is not drawn."
    )
