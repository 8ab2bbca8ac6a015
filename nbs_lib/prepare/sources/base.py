"""The interface of a source, and the settings that all sources share."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..examples import Items, file_stamp


class Source(Protocol):
    """A source of examples, read lazily.

    An item that cannot be used ends nothing and is never hidden: it is a Skipped with its reason.
    """

    def __iter__(self) -> Items:
        """Yield all items in a fixed order."""

    def total(self) -> int | None:
        """Return how many examples there are at most, or None if that is unknown."""

    def stamp(self) -> str:
        """Return what changes when any item does, "" if nothing tells."""


@dataclass(frozen=True)
class SourceOptions:
    """The settings of a source; see the parameters of these names. count: examples to draw."""

    count: int = 0
    seed: int = 0
    subset: str = ""
    split: str = "train"
    streaming: bool = False
    image_column: str = ""
    caption_column: str = ""
    captions: str = "files"


def files_stamp(paths: list[Path]) -> str:
    """Return what changes when any of these files does."""
    # The names are part of it: files that change places are another order of examples.
    return str([(str(path), file_stamp(path)) for path in paths])
