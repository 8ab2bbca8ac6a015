"""The picture-book, and scenes that its base was not trained on, drawn by code."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from ...files import PACKAGE
from ...picturebook.captions import draw_caption, draw_scene
from ...picturebook.snowmen import draw_snowman
from ...run.fingerprint import files_hash, source_files
from ..examples import Example, SyntheticImage

COMPLETE = 0.7  # share of the picture-book's captions that name every attribute


@dataclass(frozen=True)
class PictureBookSource:
    """`count` pictures with captions. Picture i depends on `seed` and i alone.

    kind: picturebook or unseen.
    """

    kind: str
    count: int
    seed: int

    def total(self) -> int:
        return self.count

    def stamp(self) -> str:
        """Return the hash of the code that draws the pictures."""
        files = source_files(PACKAGE / "picturebook")
        return files_hash(path for path in files if path.suffix == ".py")

    def __iter__(self) -> Iterator[Example]:
        code = self.stamp()  # hashed once for all images
        for i in range(self.count):
            image = SyntheticImage(self.kind, self.seed, i, code)
            id = f"{self.kind}-{self.seed}-{i:05d}"
            yield Example(id, self.caption(i), image)

    def caption(self, i: int) -> str:
        if self.kind == "unseen":
            return draw_snowman(Random(f"unseen {self.seed} {i}"))[1]
        rng = Random(f"example {self.seed} {i}")
        return draw_caption(draw_scene(rng, held_out=False), rng, complete=COMPLETE).text
