import re

import numpy as np
import pytest
from PIL import Image

from nbs_lib.config import REFERENCE_PROMPTS
from nbs_lib.config.grid_axes import Axis, read_axes
from nbs_lib.images.grid import LARGEST, Row, differences, enlarged, grid, over_axes, table, titled
from nbs_lib.images.style import COLOURS, font


def rows(count: int, side: int = 64) -> list[Row]:
    colours = {"unguided": (200, 0, 0), "guided": (0, 200, 0), "tuned": (0, 0, 200)}
    return [Row(name, np.full((count, side, side, 3), colours[name], np.uint8), "25 NFE\n0.1 s a picture") for name in COLOURS]


def area(page: Image.Image, colour: tuple[int, int, int]) -> int:
    return int((np.asarray(page) == colour).all(-1).sum())


def test_every_picture_of_every_contender_is_on_the_grid_whole():
    for seeds in ([0], [0, 1], [0, 1, 2, 3, 4, 5, 6]):
        prompts = [prompt for prompt in REFERENCE_PROMPTS for _ in seeds]
        page = grid(rows(len(prompts)), prompts, seeds * len(REFERENCE_PROMPTS))
        for colour in ((200, 0, 0), (0, 200, 0), (0, 0, 200)):
            assert area(page, colour) == len(prompts) * 192 * 192
        assert page.width < 1300
    assert area(grid(rows(1), REFERENCE_PROMPTS[:1], [5]), (200, 0, 0)) == 192 * 192


def test_small_pictures_keep_square_pixels_and_large_ones_shrink():
    checks = np.indices((64, 64)).sum(0)[..., None] % 2 * np.full(3, 255)
    large = np.asarray(enlarged(checks.astype(np.uint8)))
    assert large.shape == (192, 192, 3) and np.array_equal(large[1::3, 1::3], checks)
    assert set(np.unique(large)) == {0, 255}
    assert enlarged(np.zeros((512, 768, 3), np.uint8)).size == (LARGEST, round(512 * LARGEST / 768))


def test_titles_fit_their_pictures():
    face = font(13)
    for prompt in (*REFERENCE_PROMPTS, "very long " * 40, "x" * 300, "Ein Mädchen lächelt"):
        lines = titled(prompt, 7, True, face, 192)
        assert lines[-1] == "seed 7" and len(lines) <= 4
        assert all(face.getlength(line) <= 192 for line in lines)
    assert titled("very long " * 40, 0, False, face, 192)[-1].endswith("…")
    assert titled("A person holding a cat", 0, False, face, 192) == ["A person holding a cat"]


def test_a_table_holds_every_picture_whole_at_its_place():
    pictures = np.zeros((2, 3, 64, 64, 3), np.uint8)
    for row in range(2):
        for column in range(3):
            pictures[row, column] = (40 * row + 10, 60 * column + 20, 200)
    page = np.asarray(table(pictures, ["a", "b", "a long label of a column " * 9], ["first", "second"], "Title"))
    tops = []
    for row in range(2):
        lefts = []
        for column in range(3):
            there = (page == pictures[row, column, 0, 0]).all(-1)
            assert there.sum() == 192 * 192
            tops.append(int(np.argwhere(there)[0][0]))
            lefts.append(int(np.argwhere(there)[0][1]))
        assert lefts == sorted(lefts) and len(set(lefts)) == 3
    assert len(set(tops)) == 2 and tops == sorted(tops)


def test_a_grid_over_three_axes_has_a_part_for_each_value_of_the_third():
    axes = read_axes(["steps: 5 | 10", "adapter_scale: 0 | 0.5 | 1", "contender: tuned | guided at 3"])
    pictures = np.random.default_rng(0).integers(0, 256, (2, 3, 2, 8, 8, 3), dtype=np.uint8)
    page = np.asarray(over_axes(pictures, axes))
    for picture in pictures.reshape(-1, 8, 8, 3):
        large = picture.repeat(24, 0).repeat(24, 1)
        [*places] = np.argwhere((page[:, :, :] == large[0, 0]).all(-1))
        assert any(np.array_equal(page[y : y + 192, x : x + 192], large) for y, x in places)
    assert over_axes(pictures[:1], axes[:2]).height < len(page)


def test_differences_are_white_where_they_are_largest_and_black_where_there_are_none():
    a = np.zeros((1, 64, 64, 3), np.uint8)
    b = a.copy()
    b[:, :, 32:] = 100
    maps = np.abs(a.astype(float) - b).mean(-1) / 255
    page = np.asarray(differences(("guided", "tuned"), a, b, maps, ["A cat"], [0]))
    black, brightest = (0, 0, 4), (252, 253, 191)  # the ends of magma
    assert (page == black).all(-1).sum() == (page == brightest).all(-1).sum() == 192 * 96


def test_differences_of_a_prompt_s_seeds_are_told_apart(monkeypatch):
    said = []
    monkeypatch.setattr("nbs_lib.images.grid.table", lambda *_, notes: said.append(notes))
    images, maps = np.zeros((2, 64, 64, 3), np.uint8), np.zeros((2, 64, 64))
    for seeds in ([3, 4], [3, 3]):
        differences(("guided", "tuned"), images, images, maps, ["A cat"] * 2, seeds)
    assert said == [["seed 3", "seed 4"], []]
    page = table(np.zeros((1, 2, 64, 64, 3), np.uint8), ["A cat"] * 2, ["guided"])
    assert table(np.zeros((1, 2, 64, 64, 3), np.uint8), ["A cat"] * 2, ["guided"], notes=said[0]).height > page.height


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["steps: 5 | 10"], "1 axes; allowed are two or three"),
        (["steps: 5 | 10", "steps: 1 | 2"], "the same axis twice"),
        (["size: 5 | 10", "seed: 1"], "axis 'size: 5 | 10'; allowed is NAME: VALUE | VALUE"),
        (["steps", "seed: 1"], "allowed is NAME: VALUE"),
        (["steps: five", "seed: 1"], "its values are to be whole numbers"),
        (["w: 1 | x", "seed: 1"], "its values are to be numbers"),
        (["seed: 1 | 1", "w: 2"], "each once"),
        (["prompt: a cat | ", "w: 2"], "allowed are 1 to 12 values"),
        ([f"seed: {' | '.join(map(str, range(13)))}", "w: 2"], "allowed are 1 to 12 values"),
    ],
)
def test_wrong_axes_are_refused_in_words(given, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        read_axes(given)


def test_axes_are_read_as_they_are_written():
    assert read_axes([]) == []
    columns, rows = read_axes(["prompt: A cat, asleep | A dog: awake", " w : 1 | 2.5"])
    assert columns == Axis("prompt", ("A cat, asleep", "A dog: awake")) and rows == Axis("w", (1.0, 2.5))
    assert rows.label(2.5) == "w 2.5" and Axis("scheduler", ("LCMScheduler",)).label("LCMScheduler") == "LCM"
