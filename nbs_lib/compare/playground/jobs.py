"""Sampling jobs of the playground: every contender's pictures, or the reason why there are none."""

from collections.abc import Callable

from ...config import Play
from ...models import BaseError, StableDiffusion
from ..sampling.long_prompts import no_truncation_warnings
from ..sampling.sample_cache import provenance
from ..sampling.sampler import Sampler, Samples
from ..sampling.settings import SamplingSettings, prompt_seed_pairs
from .gallery import Sample
from .sampling_thread import StoppedError

STOPPED = "Stopped before it was finished."
PromptSamples = tuple[str, int, dict[str, Sample]]  # prompt, seed, and the samples by contender


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
    rows = [(prompt, seed, {}) for prompt, seed in zip(prompts, seeds, strict=True)]
    count = len(request.contenders)
    for number, name in enumerate(request.contenders, 1):
        task = f"{name} ({number} of {count})" if count > 1 else name

        def watch(step, n_steps, task=task):
            check()
            on_progress(step, n_steps, task)

        samples = _sample_contender(sampler, request, name, check, watch)
        for (*_, by_name), sample in zip(rows, samples, strict=True):
            by_name[name] = sample
    return rows


def _sample_contender(sampler, request, name, check, watch):
    """Return a contender's pictures, or as many times the reason why there are none."""
    prompts, seeds = prompt_seed_pairs(request.prompts, request.seeds)
    try:
        check()  # a Stop before the first step ends it too
        with no_truncation_warnings():
            settings = resolve_contender(sampler, request, name)
            batch = sampler.sample(settings, prompts, seeds, watch)
        return to_samples(batch, provenance(sampler, settings))
    except StoppedError:
        reason = STOPPED
    except Exception as failure:
        # one contender's failure must not hide the others' pictures
        reason = describe_failure(failure)
    return [Sample(None, reason)] * len(prompts)


def resolve_contender(
    sampler: Sampler,
    request: Play,
    name: str,
) -> SamplingSettings:
    """Return the settings of one of the request's contenders. Errors: see `SettingsResolver`."""
    return sampler.resolver.resolve(name, request.steps, scheduler=request.scheduler)


def to_samples(batch: Samples, settings: dict) -> list[Sample]:
    """Return each picture of a contender with its cost and its settings."""
    note = f"{batch.nfe:g} UNet passes, {batch.seconds:.2f}\u00a0s"
    # saved with the picture, beside its settings
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
    # verbose=False: transformers would warn of the same
    longest = max(len(tokenizer(prompt, verbose=False).input_ids) for prompt in prompts)
    if longest <= limit:
        return ""
    return (
        f"The text encoder reads {limit} tokens, and the prompt has {longest}: "
        "its end is not drawn."
    )
