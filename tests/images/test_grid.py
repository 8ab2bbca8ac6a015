import numpy as np
from PIL import Image

from nbs_lib.config import REFERENCE_PROMPTS
from nbs_lib.images.grid import (
    MAX_SIDE,
    GridRow,
    captioned_table,
    labelled_grid,
    prompt_lines,
    scale_for_display,
)
from nbs_lib.images.style import CONTENDER_COLOURS, font


def rows(count: int, side: int = 64) -> list[GridRow]:
    colours = {"unguided": (200, 0, 0), "guided": (0, 200, 0), "tuned": (0, 0, 200)}
    return [
        GridRow(
            name,
            np.full((count, side, side, 3), colours[name], np.uint8),
            "25 NFE\n0.1 s a picture",
        )
        for name in CONTENDER_COLOURS
    ]


def area(page: Image.Image, colour: tuple[int, int, int]) -> int:
    return int((np.asarray(page) == colour).all(-1).sum())


def test_the_grid_holds_every_picture_of_every_contender():
    for seeds in ([0], [0, 1], [0, 1, 2, 3, 4, 5, 6]):
        prompts = [prompt for prompt in REFERENCE_PROMPTS for _ in seeds]
        page = labelled_grid(rows(len(prompts)), prompts, seeds * len(REFERENCE_PROMPTS))
        for colour in ((200, 0, 0), (0, 200, 0), (0, 0, 200)):
            assert area(page, colour) == len(prompts) * 192 * 192
        assert page.width < 1300
    assert area(labelled_grid(rows(1), REFERENCE_PROMPTS[:1], [5]), (200, 0, 0)) == 192 * 192


def test_small_pictures_keep_square_pixels_and_large_ones_shrink():
    checks = np.indices((64, 64)).sum(0)[..., None] % 2 * np.full(3, 255)
    large = np.asarray(scale_for_display(checks.astype(np.uint8)))
    assert large.shape == (192, 192, 3) and np.array_equal(large[1::3, 1::3], checks)
    assert set(np.unique(large)) == {0, 255}
    assert scale_for_display(np.zeros((512, 768, 3), np.uint8)).size == (
        MAX_SIDE,
        round(512 * MAX_SIDE / 768),
    )


def test_titles_fit_their_pictures():
    face = font(13)
    for prompt in (*REFERENCE_PROMPTS, "very long " * 40, "x" * 300, "Ein Mädchen lächelt"):
        lines = prompt_lines(prompt, 7, True, face, 192)
        assert lines[-1] == "seed 7" and len(lines) <= 4
        assert all(face.getlength(line) <= 192 for line in lines)
    assert prompt_lines("very long " * 40, 0, False, face, 192)[-1].endswith("…")
    assert prompt_lines("A person holding a cat", 0, False, face, 192) == ["A person holding a cat"]


def test_a_table_holds_every_picture_in_its_cell():
    pictures = np.zeros((2, 3, 64, 64, 3), np.uint8)
    for row in range(2):
        for column in range(3):
            pictures[row, column] = (40 * row + 10, 60 * column + 20, 200)
    page = np.asarray(
        captioned_table(
            pictures, ["a", "b", "a long label of a column " * 9], ["first", "second"], "Title"
        )
    )
    tops = []
    for row in range(2):
        lefts = []
        for column in range(3):
            matches = (page == pictures[row, column, 0, 0]).all(-1)
            assert matches.sum() == 192 * 192
            tops.append(int(np.argwhere(matches)[0][0]))
            lefts.append(int(np.argwhere(matches)[0][1]))
        assert lefts == sorted(lefts) and len(set(lefts)) == 3
    assert len(set(tops)) == 2 and tops == sorted(tops)
