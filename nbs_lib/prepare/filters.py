"""Which examples are kept. Each filter is a small function of an example and of what its image looks like.

A filter returns why the example is dropped, with a detail, or None. Those that need to know what came before are classes;
they are asked in the order of the source, last of all, and remember only what was kept.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..config import Prepare
from .examples import Example
from .hashes import Hashes, Names, hash64

Reason = tuple[str, str] | None
SCORES, HIGHEST = ("image_nsfw", "prompt_nsfw"), 1.0
"""DiffusionDB's scores, and the limit that is none."""
BLURRED = 2.0
"""The score of DiffusionDB for images that Stability's filter blurred."""


@dataclass(frozen=True)
class ImageInfo:
    """What is known of an image that was looked at. digest: SHA-256 of its content; width, height: in pixels, upright;
    phash: perceptual hash of 64 bits, None where nobody asked for it; fault: why it cannot be used, or ""."""

    digest: bytes = b""
    width: int = 0
    height: int = 0
    phash: int | None = None
    fault: str = ""


def captionless(example: Example, look: ImageInfo, config: Prepare) -> Reason:
    return None if example.caption else ("caption is empty", "")


def unfit_for_work(example: Example, look: ImageInfo, config: Prepare) -> Reason:
    """Drop what scores above the limit; where there is one, also what should have a score and has none that can be read."""
    for name in SCORES:
        if name not in example.known:
            continue
        score = readable(example.known[name])
        if score is None and config.max_nsfw < HIGHEST:
            return f"{name} cannot be read, and max_nsfw is set", repr(example.known[name])[:80]
        if score == BLURRED:
            return f"{name} 2.0: blurred by its source", f"{score:.3g}"
        if score is not None and score > config.max_nsfw:
            return f"{name} above max_nsfw", f"{score:.3g}"
    return None


def readable(value: Any) -> float | None:
    """Return a score as a number, the highest one of a list; None where there is none."""
    if isinstance(value, list | tuple):
        scores = [None if isinstance(each, list | tuple) else readable(each) for each in value]
        return None if None in scores else max(scores, default=None)
    try:
        score = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return (
        score if score >= 0 else None
    )  # neither no number nor a mark of a missing one, such as -1


def unreadable(example: Example, look: ImageInfo, config: Prepare) -> Reason:
    return (look.fault, "") if look.fault else None


def too_small(example: Example, look: ImageInfo, config: Prepare) -> Reason:
    if example.image is None or min(look.width, look.height) >= config.min_side:
        return None
    return "smaller than min_side", f"{look.width} × {look.height}"


def too_long(example: Example, look: ImageInfo, config: Prepare) -> Reason:
    sides = sorted((look.width, look.height))
    if example.image is None or not config.max_aspect or sides[1] <= config.max_aspect * sides[0]:
        return None
    return "longer than max_aspect", f"{look.width} × {look.height}"


class DuplicateFilter:
    """Images of the same content, prompts of the same words. what: takes from an example and a look what is compared; kept: the
    ids of what was kept, of which the last is that of the example that `keep` is given."""

    def __init__(
        self, reason: str, what: Callable[[Example, ImageInfo], bytes | None], kept: Names
    ):
        self.reason, self.what, self.kept, self.seen = reason, what, kept, Hashes()

    def __call__(self, example: Example, look: ImageInfo, config: Prepare) -> Reason:
        value = self.what(example, look)
        number = None if value is None else self.seen.get(hash64(value))
        return None if number is None else (self.reason, self.kept[number])

    def keep(self, example: Example, look: ImageInfo):
        if (value := self.what(example, look)) is not None:
            self.seen.add(hash64(value), len(self.kept) - 1)


class NearDuplicateFilter:
    """Images whose perceptual hashes differ in `distance` bits at most.

    The 64 bits are cut into distance + 1 parts: of two such hashes one part at least is equal, so only these are compared.
    """

    def __init__(self, distance: int, label: Callable[[Example], Any] = lambda example: example.id):
        """label: what is remembered of an example."""
        self.distance, self.label, parts = distance, label, distance + 1
        edges = [64 * i // parts for i in range(parts + 1)]
        self.parts = [
            (low, (1 << (high - low)) - 1) for low, high in zip(edges, edges[1:], strict=False)
        ]
        self.seen: list[dict[int, list[tuple[int, Any]]]] = [{} for _ in self.parts]

    def find(self, phash: int) -> tuple[Any, int] | None:
        """The label of the first image as near as that, and its distance in bits."""
        for (low, mask), seen in zip(self.parts, self.seen, strict=True):
            for other, label in seen.get(phash >> low & mask, ()):
                if (apart := (other ^ phash).bit_count()) <= self.distance:
                    return label, apart
        return None

    def __call__(self, example: Example, look: ImageInfo, config: Prepare) -> Reason:
        found = self.find(look.phash) if example.image is not None else None
        return ("near duplicate", f"{found[0]}, {found[1]} of 64 bits apart") if found else None

    def keep(self, example: Example, look: ImageInfo):
        if example.image is not None:
            for (low, mask), seen in zip(self.parts, self.seen, strict=True):
                seen.setdefault(look.phash >> low & mask, []).append(
                    (look.phash, self.label(example))
                )


BEFORE = (captionless, unfit_for_work)
"""Filters that need no image: it is not even read."""
AFTER = (unreadable, too_small, too_long)


class Filters:
    """All filters of a stage, in their order."""

    def __init__(self, config: Prepare):
        self.config = config
        self.stateful, self.kept = [], Names()
        if config.drop_duplicates:
            self.stateful.append(
                DuplicateFilter(
                    "same image as another", lambda _, look: look.digest or None, self.kept
                )
            )
        if config.drop_same_prompts:
            self.stateful.append(
                DuplicateFilter(
                    "same prompt as another", lambda example, _: example.caption.encode(), self.kept
                )
            )
        if config.near_duplicates >= 0:
            self.stateful.append(NearDuplicateFilter(config.near_duplicates))

    def before(self, example: Example) -> Reason:
        return next(
            (reason for each in BEFORE if (reason := each(example, ImageInfo(), self.config))), None
        )

    def after(self, example: Example, look: ImageInfo) -> Reason:
        """Of an example that passed `before`; one that is kept is remembered."""
        for each in (*AFTER, *self.stateful):
            if reason := each(example, look, self.config):
                return reason
        if any(isinstance(each, DuplicateFilter) for each in self.stateful):
            self.kept.add(example.id)
        for each in self.stateful:
            each.keep(example, look)
        return None
