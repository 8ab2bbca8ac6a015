"""The filters that decide which examples are kept, each by its caption and its image's properties.

A filter returns why an example is dropped, with a detail, or None. A filter that depends on earlier
examples is a class. Such filters come last and remember only examples that were kept.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ..config import Prepare
from .examples import Example
from .hashes import hash64
from .hashes.table import HashTable

Reason = tuple[str, str] | None
SCORES = ("image_nsfw", "prompt_nsfw")  # columns of DiffusionDB
HIGHEST = 1.0  # a limit that drops nothing
BLURRED = 2.0  # DiffusionDB's score of images that Stability's filter blurred


@dataclass(frozen=True)
class ImageInfo:
    """The properties of a decoded image.

    digest: SHA-256 of its content.
    width, height: in pixels, upright.
    phash: perceptual hash of 64 bits, None if it was not computed.
    fault: why the image cannot be used, or "".
    """

    digest: bytes = b""
    width: int = 0
    height: int = 0
    phash: int | None = None
    fault: str = ""


def captionless(example: Example, info: ImageInfo, config: Prepare) -> Reason:
    return None if example.caption else ("caption is empty", "")


def unfit_for_work(example: Example, info: ImageInfo, config: Prepare) -> Reason:
    """Drop scores above the limit, and, if there is a limit, scores that cannot be read."""
    for name in SCORES:
        if name not in example.metadata:
            continue
        value = example.metadata[name]
        score = read_score(value)
        # With a limit set, an unknown score must not let an image through.
        if score is None and config.max_nsfw < HIGHEST:
            return f"{name} cannot be read, and max_nsfw is set", repr(value)[:80]
        if score is None:
            continue
        detail = f"{score:.3g}"
        if score == BLURRED:
            return f"{name} 2.0: blurred by its source", detail
        if score > config.max_nsfw:
            return f"{name} above max_nsfw", detail
    return None


def read_score(value: Any) -> float | None:
    """Return a score as a number, the highest one of a list; None if it is no number."""
    if isinstance(value, list | tuple):
        # Deeply nested lists would exceed Python's recursion.
        if any(isinstance(item, list | tuple) for item in value):
            return None
        scores = list(map(read_score, value))
        return None if None in scores else max(scores, default=None)
    try:
        score = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    # Negative numbers such as -1 mark a missing score; the comparison is false for NaN, too.
    return score if score >= 0 else None


def unreadable(example: Example, info: ImageInfo, config: Prepare) -> Reason:
    return (info.fault, "") if info.fault else None


def too_small(example: Example, info: ImageInfo, config: Prepare) -> Reason:
    shorter = min(info.width, info.height)
    if example.image is None or shorter >= config.min_side:
        return None
    return "smaller than min_side", f"{info.width} × {info.height}"


def too_long(example: Example, info: ImageInfo, config: Prepare) -> Reason:
    # A limit of 0 is none.
    if example.image is None or not config.max_aspect:
        return None
    shorter, longer = sorted((info.width, info.height))
    if longer <= config.max_aspect * shorter:
        return None
    return "longer than max_aspect", f"{info.width} × {info.height}"


class DuplicateFilter:
    """A filter of examples that repeat a value, such as an image's content or a prompt.

    reason: of dropping.
    value: returns the bytes that are compared, or None to compare nothing.
    """

    def __init__(self, reason: str, value: Callable[[Example, ImageInfo], bytes | None]):
        self.reason = reason
        self.value = value
        self._ids = HashTable()

    def __call__(self, example: Example, info: ImageInfo, config: Prepare) -> Reason:
        value = self.value(example, info)
        first = next(self._ids.find(hash64(value)), None) if value is not None else None
        return None if first is None else (self.reason, _from_bytes(first))

    def add(self, example: Example, info: ImageInfo):
        """Remember an example that was kept."""
        value = self.value(example, info)
        if value is not None:
            self._ids.add(hash64(value), _as_bytes(example.id))


class NearDuplicateFilter:
    """A filter of images whose perceptual hashes differ in at most `distance` bits.

    The 64 bits are cut into distance + 1 parts. Two such hashes agree in one part at least, so only
    hashes that share a part are compared.
    """

    def __init__(self, distance: int):
        """Begin without images."""
        self.distance = distance
        n_parts = distance + 1
        edges = [64 * i // n_parts for i in range(n_parts + 1)]
        # Each part by its lowest bit and its mask.
        self.parts = [(low, (1 << (high - low)) - 1) for low, high in pairwise(edges)]
        self._images = HashTable()

    def find(self, phash: int) -> tuple[str, int] | None:
        """Return the id of the first image as near as that, and its distance in bits."""
        for image in self._images.find(*self._parts_of(phash)):
            bits = (int.from_bytes(image[:8]) ^ phash).bit_count()
            if bits <= self.distance:
                return _from_bytes(image[8:]), bits
        return None

    def _parts_of(self, phash: int) -> list[int]:
        """Return a key for each part of a hash."""
        return [hash64(b"%d %d" % (low, phash >> low & mask)) for low, mask in self.parts]

    def __call__(self, example: Example, info: ImageInfo, config: Prepare) -> Reason:
        match = self.find(info.phash) if example.image is not None else None
        if match is None:
            return None
        first, bits = match
        return "near duplicate", f"{first}, {bits} of 64 bits apart"

    def add(self, example: Example, info: ImageInfo):
        """Remember an example that was kept."""
        if example.image is not None:
            image = info.phash.to_bytes(8) + _as_bytes(example.id)
            # Listed under every part, as nobody knows which one another hash shares.
            for key in self._parts_of(info.phash):
                self._images.add(key, image)


def _as_bytes(id: str) -> bytes:
    # A file's name may have bytes that are no UTF-8, which Python holds as surrogates.
    return id.encode("utf-8", "surrogatepass")


def _from_bytes(id: bytes) -> str:
    return id.decode("utf-8", "surrogatepass")


# Filters that need no image, which is then not even read.
BEFORE = (captionless, unfit_for_work)
AFTER = (unreadable, too_small, too_long)


class Filters:
    """All filters of a source, in their order."""

    def __init__(self, config: Prepare):
        self.config = config
        self.stateful: list[DuplicateFilter | NearDuplicateFilter] = []
        # The cheapest filters come first.
        if config.drop_duplicates:
            same_image = DuplicateFilter("same image as another", _digest)
            self.stateful.append(same_image)
        if config.drop_same_prompts:
            same_prompt = DuplicateFilter("same prompt as another", _prompt)
            self.stateful.append(same_prompt)
        if config.near_duplicates >= 0:
            self.stateful.append(NearDuplicateFilter(config.near_duplicates))

    def before(self, example: Example) -> Reason:
        """Return why an example is dropped without its image being read, or None."""
        return self._first_reason(BEFORE, example, ImageInfo())

    def after(self, example: Example, info: ImageInfo) -> Reason:
        """Return why an example that passed `before` is dropped. One that is kept is remembered."""
        filters = (*AFTER, *self.stateful)
        reason = self._first_reason(filters, example, info)
        # An example that is dropped must not make a later one its duplicate.
        if reason is None:
            for stateful in self.stateful:
                stateful.add(example, info)
        return reason

    def _first_reason(self, filters: tuple, example: Example, info: ImageInfo) -> Reason:
        for drop in filters:
            if reason := drop(example, info, self.config):
                return reason
        return None


def _digest(example: Example, info: ImageInfo) -> bytes | None:
    return info.digest or None


def _prompt(example: Example, info: ImageInfo) -> bytes:
    return example.caption.encode()
