from random import Random

import numpy as np
import pytest

from nbs_lib.config import REFERENCE_PROMPTS
from nbs_lib.picturebook import outdoors
from nbs_lib.picturebook.captions import (
    ATTRIBUTES,
    SCENE_KINDS,
    WORDINGS,
    Caption,
    Scene,
    all_scenes,
    always_named,
    draw_scene,
    held_out_captions,
    near_miss_choices,
)
from nbs_lib.picturebook.dataset import GROUP, draw_book, draw_grouped_book
from nbs_lib.picturebook.draw import draw_picture


def test_the_first_wording_of_each_kind_is_its_reference_prompt():
    texts = []
    for kind in SCENE_KINDS:
        scene = all_scenes(kind)[0]
        scene = scene.changed("count", "5") if kind == "cake" else scene
        texts.append(Caption(scene, 0, always_named(kind, 0)).text)
    assert texts == REFERENCE_PROMPTS


def test_captions_by_hand():
    scene = Scene("fence", ("orange", "white", "rain"))
    assert Caption(scene, 1, frozenset()).text == "A boy is jumping over a fence"
    complete = Caption(scene, 0, frozenset(ATTRIBUTES["fence"])).text
    assert complete == (
        "A photo of a boy in an orange shirt jumping over a white fence on a rainy day"
    )
    tree = Scene("road", ("red", "1", "left", "night"))
    assert "past 1 tree on the left" in Caption(tree, 1, frozenset(ATTRIBUTES["road"])).text


def test_near_misses_differ_in_one_named_value():
    caption = Caption(Scene("tv", ("red", "blue", "left", "day")), 0, frozenset({"shirt", "side"}))
    misses = caption.near_misses()
    assert len(misses) == 7 + 1
    for miss in misses:
        changed = [
            a for a in ATTRIBUTES["tv"] if miss.scene.attributes[a] != caption.scene.attributes[a]
        ]
        assert len(changed) == 1 and changed[0] in caption.named
        assert not miss.holds_for(caption.scene)


@pytest.mark.parametrize("kind", SCENE_KINDS)
def test_every_kind_has_sixteen_choices_in_every_wording(kind):
    for wording in range(len(WORDINGS[kind])):
        caption = Caption(all_scenes(kind)[0], wording, frozenset(ATTRIBUTES[kind]))
        choices = near_miss_choices(caption)
        assert len(set(choices)) == 16 and choices[0] == caption.text


def test_held_out_scenes_are_never_drawn_for_training():
    rng = Random(0)
    trained = {draw_scene(rng, held_out=False) for _ in range(3000)}
    assert not any(scene.held_out for scene in trained)
    assert all(caption.scene.held_out for caption in held_out_captions(200))
    share = np.mean([scene.held_out for kind in SCENE_KINDS for scene in all_scenes(kind)])
    assert 0.08 < share < 0.12
    assert not any(scene.held_out for scene in draw_grouped_book(20).scenes)


def test_a_seed_fixes_the_book():
    first, again, other = draw_book(20, 3), draw_book(20, 3), draw_book(20, 4)
    assert np.array_equal(first.images, again.images) and first.scenes == again.scenes
    assert not np.array_equal(first.images, other.images)
    assert first.images.shape == (20, 128, 128, 3) and first.images.dtype == np.uint8


def test_a_group_is_a_scene_and_its_near_misses():
    book = draw_grouped_book(5)
    for start in range(0, len(book), GROUP):
        first, *others = book.scenes[start : start + GROUP]
        for other in others:
            assert sum(a != b for a, b in zip(first.values, other.values, strict=True)) == 1


@pytest.mark.parametrize("kind", SCENE_KINDS)
def test_every_attribute_changes_the_picture(kind):
    """Changing one value, with all chance equal, changes the picture by more than a few pixels."""
    rng = Random(1)
    for name, values in ATTRIBUTES[kind].items():
        for _ in range(3):
            scene = Scene(kind, tuple(rng.choice(v) for v in ATTRIBUTES[kind].values()))
            other = scene.changed(
                name, rng.choice([v for v in values if v != scene.attributes[name]])
            )
            a, b = (np.asarray(draw_picture(s, Random(5))).astype(int) for s in (scene, other))
            assert (np.abs(a - b).max(axis=2) > 24).sum() >= 12, (kind, name, scene, other)


def test_rain_falls_beside_faces(monkeypatch):
    scene = Scene("soda", ("red", "blue", "left", "rain"))
    rainy = [np.asarray(draw_picture(scene, Random(i))).astype(int) for i in range(8)]
    heads = []
    monkeypatch.setattr(outdoors, "_draw_rain", lambda canvas: heads.extend(canvas.heads))
    for i, picture in enumerate(rainy):
        dry = np.asarray(draw_picture(scene, Random(i))).astype(int)
        rows, columns = np.nonzero(np.abs(picture - dry).max(2))
        x, y, r = heads[i]
        # 192 units are 128 pixels
        distances = np.hypot(1.5 * columns - x, 1.5 * rows - y)
        assert len(rows) > 50 and distances.min() > r
