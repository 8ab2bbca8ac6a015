"""Pages of pictures that only a comparison draws: over axes, and where two contenders differ."""

import numpy as np

from nbs_lib.compare.report.figures import axes_page, differences_page
from nbs_lib.config.grid_axes import parse_axes
from nbs_lib.images.grid import captioned_table


def test_a_grid_over_three_axes_has_a_part_for_each_value_of_the_third():
    axes = parse_axes(
        ["steps: 5 | 10", "adapter_scale: 0 | 0.5 | 1", "contender: tuned | guided at 3"]
    )
    pictures = np.random.default_rng(0).integers(0, 256, (2, 3, 2, 8, 8, 3), dtype=np.uint8)
    page = np.asarray(axes_page(pictures, axes))
    for picture in pictures.reshape(-1, 8, 8, 3):
        large = picture.repeat(24, 0).repeat(24, 1)
        [*positions] = np.argwhere((page[:, :, :] == large[0, 0]).all(-1))
        assert any(np.array_equal(page[y : y + 192, x : x + 192], large) for y, x in positions)
    assert axes_page(pictures[:1], axes[:2]).height < len(page)


def test_differences_are_white_where_they_are_largest_and_black_where_there_are_none():
    a = np.zeros((1, 64, 64, 3), np.uint8)
    b = a.copy()
    b[:, :, 32:] = 100
    page = np.asarray(differences_page(("guided", "tuned"), a, b, ["A cat"], [0]))
    black, brightest = (0, 0, 4), (252, 253, 191)  # the ends of magma
    assert (page == black).all(-1).sum() == (page == brightest).all(-1).sum() == 192 * 96


def test_differences_of_one_prompt_are_labelled_with_their_seeds(monkeypatch):
    notes_by_call = []
    monkeypatch.setattr(
        "nbs_lib.images.grid.captioned_table", lambda *_, notes: notes_by_call.append(notes)
    )
    images = np.zeros((2, 64, 64, 3), np.uint8)
    for seeds in ([3, 4], [3, 3]):
        differences_page(("guided", "tuned"), images, images, ["A cat"] * 2, seeds)
    assert notes_by_call == [["seed 3", "seed 4"], []]
    page = captioned_table(np.zeros((1, 2, 64, 64, 3), np.uint8), ["A cat"] * 2, ["guided"])
    assert (
        captioned_table(
            np.zeros((1, 2, 64, 64, 3), np.uint8), ["A cat"] * 2, ["guided"], notes=notes_by_call[0]
        ).height
        > page.height
    )
