"""A text file of prompts, one a line, for training on the teacher's own sampling."""

from dataclasses import dataclass
from pathlib import Path

from ..captions import CaptionError, clean_caption, decode_caption, read_lines
from ..enclosure import open_regular
from ..examples import Example, Item, Items, Skipped, file_stamp


@dataclass(frozen=True)
class Prompts:
    """The lines of a file that are not empty."""

    path: Path

    def total(self) -> int:
        # Not all of them need be usable: this is the most that there can be.
        with open_regular(self.path) as file:
            return sum(bool(line.strip()) for line in read_lines(file))

    def stamp(self) -> str:
        return file_stamp(self.path)

    def __iter__(self) -> Items:
        with open_regular(self.path) as file:
            # Empty lines count, so that an id leads to its line in an editor.
            for number, line in enumerate(read_lines(file), start=1):
                if line.strip():
                    yield self._example(number, line)

    def _example(self, number: int, line: bytes) -> Item:
        try:
            caption = clean_caption(line)
        except CaptionError as fault:
            return Skipped(decode_caption(f"{self.path.name}, line {number}"), str(fault))
        return Example(decode_caption(f"{self.path.stem}-{number:06d}"), caption)
