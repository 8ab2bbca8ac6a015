"""A text file of prompts, one a line, without images: the teacher's own sampling makes what is learned from."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..captions import CaptionError, clean_caption, decode_caption, lines
from ..enclosure import open_regular
from ..examples import Example, Skipped, change_stamp


@dataclass(frozen=True)
class Prompts:
    """The lines of a file that are not empty."""

    path: Path

    def total(self) -> int:
        with open_regular(self.path) as file:
            return sum(bool(line.strip()) for line in lines(file))

    def stamp(self) -> str:
        return change_stamp(self.path)

    def __iter__(self) -> Iterator[Example | Skipped]:
        with open_regular(self.path) as file:
            for number, line in enumerate(lines(file), start=1):
                if not line.strip():
                    continue
                try:
                    yield Example(
                        decode_caption(f"{self.path.stem}-{number:06d}"), clean_caption(line)
                    )
                except CaptionError as fault:
                    yield Skipped(decode_caption(f"{self.path.name}, line {number}"), str(fault))
