"""The progress lines of a comparison: timing, then pictures of all contenders and who is drawn, then what is made of them."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

from tqdm.std import tqdm

from ..config import Compare
from ..run.progress_bar import progress_bar
from .metrics.effective_guidance import POINTS, guidance_turns
from .sampling.sample_cache import SampleCache
from .sampling.sampler import Sampler

LETTERS = 24  # of a contender's name, at most
LINE = {"mininterval": 5, "ncols": 88}


def steps(desc: str, items: Collection[Any], unit: str) -> tqdm:
    """Iterate over items, with a bar that counts them."""
    return progress_bar(desc, iterable=items, unit=unit, **LINE)


@contextmanager
def counted(kept: SampleCache, config: Compare, captions: int) -> Iterator[None]:
    """A bar over all pictures that the comparison asks for, as training has one; those that are there already count, too."""
    with progress_bar(
        "compare", total=expected_pictures(kept.sampler, config, captions), unit="picture", **LINE
    ) as bar:

        def tell(name: str, pictures: int):
            shown = name if len(name) <= LETTERS else f"…{name[1 - LETTERS :]}"
            if bar.desc != f"{shown}: ":
                bar.set_description(shown)
            bar.update(pictures)

        kept.tell = tell
        yield
        kept.tell = lambda name, pictures: None
        bar.set_description("compare")


def expected_pictures(sampler: Sampler, config: Compare, captions: int) -> int:
    """How many pictures the comparison asks for: of the prompts, of captions, for the dial and over the axes."""
    pairs, turns, axes = (
        len(config.prompts) * len(config.seeds),
        guidance_turns(sampler, config),
        config.grid_axes,
    )
    turned = (POINTS + len(turns)) * pairs if turns else 0
    return (
        len(config.contenders) * (pairs + captions)
        + turned
        + (prod(len(axis.values) for axis in axes) if axes else 0)
    )
