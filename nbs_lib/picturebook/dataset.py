"""Many scenes with their pictures, drawn from a seed."""

from dataclasses import dataclass
from random import Random

import numpy as np

from .captions import ATTRIBUTES, Scene, draw_scene
from .draw import draw_picture

GROUP = 8  # scenes in a group: one, and seven that differ from it in one attribute


@dataclass(frozen=True)
class PictureBook:
    """Scenes and their pictures, in the same order."""

    scenes: list[Scene]
    images: np.ndarray  # uint8 [count, 128, 128, 3]

    def __len__(self) -> int:
        return len(self.scenes)


def draw_book(count: int, seed: int = 0, held_out: bool = False) -> PictureBook:
    """Return independent scenes of one side of the split with their pictures."""
    rng = Random(f"book {seed}")
    return _draw_all([draw_scene(rng, held_out) for _ in range(count)], rng)


def draw_grouped_book(groups: int, seed: int = 0, first: int = 0) -> PictureBook:
    """Return training scenes in groups of GROUP with their pictures.

    first: number of the first group; a group depends on seed and number alone
    """
    scenes = []
    images = []
    for number in range(first, first + groups):
        rng = Random(f"group {seed} {number}")
        group = _draw_all(_draw_group(rng), rng)
        scenes += group.scenes
        images.append(group.images)
    return PictureBook(scenes, np.concatenate(images))


def _draw_group(rng: Random) -> list[Scene]:
    # near misses, so that a picture meets them in the batch it is trained in
    first = draw_scene(rng, held_out=False)
    attributes = ATTRIBUTES[first.kind]
    group = [first]
    while len(group) < GROUP:
        name = rng.choice(list(attributes))
        other = first.changed(name, rng.choice(attributes[name]))
        # a near miss may be held out, and must not be trained on
        if other not in group and not other.held_out:
            group.append(other)
    return group


def _draw_all(scenes: list[Scene], rng: Random) -> PictureBook:
    return PictureBook(scenes, np.stack([np.asarray(draw_picture(scene, rng)) for scene in scenes]))
