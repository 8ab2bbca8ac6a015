"""What the controls ask for, drawn contender by contender; what fails or is stopped comes back as words."""

from collections.abc import Callable
from typing import Any

from ...config import Play
from ...models import BaseError, StableDiffusion
from ..sampling.long_prompts import no_truncation_warnings
from ..sampling.provenance import provenance
from ..sampling.sampler import Sampler, Samples
from .gallery import Sample
from .sampling_thread import StoppedError

STOPPED = "Stopped before it was finished."


def draw(
    sampler: Sampler,
    asked: Play,
    check: Callable[[], None],
    progress: Callable[[int, int, str], None],
) -> list[tuple[str, int, dict[str, Sample]]]:
    """Prompt, seed and shots by contender, for each prompt and seed of `asked`.

    check: raises StoppedError to end the sampling, after any step. progress: is told steps done, of how many, and of whom.
    """
    pairs = [(prompt, seed) for prompt in asked.prompts for seed in asked.seeds]
    drawn, count = {}, len(asked.contenders)
    for number, name in enumerate(asked.contenders, 1):
        doing = f"{name} ({number} of {count})" if count > 1 else name
        drawn[name] = sampled(
            sampler,
            name,
            pairs,
            asked,
            check,
            lambda done, of, doing=doing: progress(done, of, doing),
        )
    return [
        (*pair, {name: to_sample(told, i) for name, told in drawn.items()})
        for i, pair in enumerate(pairs)
    ]


def sampled(
    sampler: Sampler,
    name: str,
    pairs: list[tuple[str, int]],
    asked: Play,
    check: Callable[[], None],
    progress: Callable[[int, int], None],
) -> tuple[Samples, dict[str, Any]] | str:
    """The samples of one contender and how they are made, or words."""

    def watch(done: int, of: int):
        check()
        progress(done, of)

    prompts, seeds = (list(each) for each in zip(*pairs, strict=True))
    try:
        check()
        with no_truncation_warnings():
            way = sampler.ways.of(name, asked.steps, scheduler=asked.scheduler)
            return sampler.sample_way(way, prompts, seeds, watch), provenance(sampler, way)
    except StoppedError:
        return STOPPED
    except Exception as failure:
        return describe_job(failure)


def describe_job(failure: Exception) -> str:
    """A failure for the page, for a thread's traceback is seen by nobody. Refusals are sentences already."""
    if isinstance(failure, ValueError | FileNotFoundError | BaseError):
        return str(failure)
    return f"Sampling failed: {type(failure).__name__}: {failure}"


def to_sample(told: tuple[Samples, dict[str, Any]] | str, i: int) -> Sample:
    """The i-th picture of a contender with its cost, or the words in its place."""
    if isinstance(told, str):
        return Sample(None, told)
    samples, how = told
    facts: dict[str, Any] = how | {"nfe": samples.nfe, "seconds": round(samples.seconds, 3)}
    return Sample(
        samples.images[i], f"{samples.nfe:g} UNet passes, {samples.seconds:.2f}\u00a0s", facts
    )


def truncated_prompts(prompts: list[str], base: StableDiffusion) -> str:
    """A sentence where the text encoder does not read all of a prompt; else nothing."""
    tokenizer = base.tokenizer()
    most = tokenizer.model_max_length
    longest = max(len(tokenizer(prompt, verbose=False).input_ids) for prompt in prompts)
    if longest <= most:
        return ""
    return (
        f"The text encoder reads {most} tokens, and the prompt has {longest}: its end is not drawn."
    )
