"""The progress line of a comparison: pictures of all contenders, and who is drawn."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod

from ..axes import read_axes
from ..bars import progress_bar
from ..config import Compare
from .dial import POINTS, turns_of
from .kept import Kept
from .measure import REPETITIONS, captions_of
from .sample import Sampler

LETTERS = 24  # of a contender's name, at most


@contextmanager
def counted(kept: Kept, config: Compare) -> Iterator[None]:
    """A bar over all pictures that the comparison asks for, as training has one; those that are there already count, too."""
    with tqdm(total=asked_for(kept.sampler, config), desc="compare", unit="picture", mininterval=5, ncols=88) as bar:

        def tell(name: str, pictures: int):
            shown = name if len(name) <= LETTERS else f"…{name[1 - LETTERS :]}"
            if bar.desc != f"{shown}: ":
                bar.set_description(shown)
            bar.update(pictures)

        kept.tell = tell
        yield
        bar.set_description("compare")


def asked_for(sampler: Sampler, config: Compare) -> int:
    """How many pictures the comparison asks for: timed, of the prompts, of captions, for the dial and over the axes."""
    pairs, turns, axes = len(config.prompts) * len(config.seeds), turns_of(sampler, config), read_axes(config.axes)
    each = REPETITIONS * min(pairs, sampler.batch_size) + pairs + captions_of(sampler, config)
    turned = (POINTS + len(turns)) * pairs if turns else 0
    return len(config.contenders) * each + turned + (prod(len(axis.values) for axis in axes) if axes else 0)
