"""Drawn sets: many scenes with their pictures, from a seed."""

from dataclasses import dataclass
from random import Random

import numpy as np

from .captions import ATTRIBUTES, Scene, draw_scene
from .draw import draw

GROUP = 8  # scenes a group: one, and seven that differ from it in one attribute


@dataclass(frozen=True)
class PictureBook:
    """Scenes and their pictures, in the same order. images: uint8, [count, 64, 64, 3]."""

    scenes: list[Scene]
    images: np.ndarray

    def __len__(self) -> int:
        return len(self.scenes)


def draw_book(count: int, seed: int = 0, held_out: bool = False) -> PictureBook:
    """`count` independent scenes of one side of the split, drawn."""
    rng = Random(f"book {seed}")
    return _draw_all([draw_scene(rng, held_out) for _ in range(count)], rng)


def draw_grouped_book(groups: int, seed: int = 0) -> PictureBook:
    """Training scenes in groups of `GROUP`, so that a picture meets its near misses in the batch it is trained in."""
    rng = Random(f"grouped book {seed}")
    return _draw_all([scene for _ in range(groups) for scene in _group(rng)], rng)


def _group(rng: Random) -> list[Scene]:
    first = draw_scene(rng, held_out=False)
    group = [first]
    while len(group) < GROUP:
        name = rng.choice(list(ATTRIBUTES[first.kind]))
        other = first.changed(name, rng.choice(ATTRIBUTES[first.kind][name]))
        if other not in group and not other.held_out:
            group.append(other)
    return group


def _draw_all(scenes: list[Scene], rng: Random) -> PictureBook:
    return PictureBook(scenes, np.stack([np.asarray(draw(scene, rng)) for scene in scenes]))
