"""The notebook's tables and pictures: every picture and word of them, and no markup of users."""

import math
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from nbs_lib.prepare import charts, manifest, preview, sheets

HOSTILE = '<script>alert("x")</script>'


def test_text_of_users_is_escaped():
    row = {"id": HOSTILE, "reason": "image without caption", "detail": HOSTILE}
    tables = preview.caption_table([HOSTILE], [HOSTILE])
    tables += preview.dropped_table([row], 1)
    tables += preview.reasons_table(3, {HOSTILE: 2})
    assert "<script" not in tables
    assert tables.count("&lt;script&gt;") == 5


@pytest.mark.parametrize(
    "sizes",
    [
        {(256, 256): 1865},
        {(256, 256): 1865, (256, 264): 2},
        {(256, 256): 40, (512, 256): 30, (300, 400): 7, (1000, 100): 1},
        {(500, 333): 1},
    ],
    ids=["squares", "nearly all squares", "mixed", "one"],
)
def test_every_proportion_has_a_visible_bar(sizes):
    figure = charts.size_histograms(Counter(sizes))
    figure.canvas.draw()
    for axes in figure.axes:
        bars = [bar.get_window_extent() for bar in axes.patches if bar.get_height()]
        assert sum(bar.get_height() for bar in axes.patches) == sum(sizes.values())
        assert all(bar.width > 3 and bar.height > 3 for bar in bars), "pixels"
    low, high = axes.get_xlim()
    proportions = {math.log2(width / height) for width, height in sizes}
    assert len(bars) == len(proportions)
    assert low < min(proportions)
    assert max(proportions) < high
    assert "1:1" in [label.get_text() for label in axes.get_xticklabels()]


def test_a_sheet_has_every_picture_in_its_tile():
    colours = [(i * 20, 255 - i * 20, 7) for i in range(10)]
    pictures = [Image.new("RGB", (64, 64), colour) for colour in colours]
    sheet = sheets.contact_sheet(pictures, ["x"] * 10, 10)
    step = sheets.TILE + sheets.GAP
    middle = sheets.GAP + sheets.TILE // 2
    second_row = middle + sheets.TILE + 4 + sheets.LINE + sheets.GAP
    assert sheet.getpixel((middle + 3 * step, middle)) == colours[3]
    assert sheet.getpixel((middle + step, second_row)) == colours[9]


def test_pictures_of_the_prior_have_rows_of_their_own():
    red, blue = (Image.new("RGB", (64, 64), colour) for colour in ((255, 0, 0), (0, 0, 255)))
    sheet = sheets.contact_sheet([red] * 9 + [blue] * 2, ["x"] * 11, 9)
    middle = sheets.GAP + sheets.TILE // 2
    row = sheets.TILE + sheets.GAP + 4 + sheets.LINE
    second, third = middle + row, middle + 2 * row + sheets.LINE + 4
    step = sheets.TILE + sheets.GAP
    assert sheet.getpixel((middle, second)) == (255, 0, 0)
    assert sheet.getpixel((middle + step, second)) == sheets.PAPER
    assert sheet.getpixel((middle, third)) == sheet.getpixel((middle + step, third)) == (0, 0, 255)


def test_own_pictures_are_all_shown_before_a_few_of_a_larger_prior(tmp_path):
    shown = manifest.Manifest(tmp_path)
    for number in range(200):
        # 20 own pictures, then 180 of the prior
        example = SimpleNamespace(id=str(number), caption="", prior=number >= 20, image=object())
        info = SimpleNamespace(width=8, height=8, digest=b"", phash=None)
        shown.keep(example, info)
    numbers = [int(example.id) for example in shown.examples_to_show]
    assert numbers[:20] == list(range(20))
    assert 4 <= len(numbers[20:]) <= manifest.SHOWN_PRIOR and min(numbers[20:]) >= 20
    shown.discard()


def test_titles_stand_above_their_pictures_and_gaps_stay_empty():
    red = Image.new("RGB", (10, 10), (255, 0, 0))
    sheet = sheets.side_by_side([(red, None), (red, red)], ("left", "right"))
    step = sheets.TILE + sheets.GAP
    first = sheets.GAP + sheets.LINE + 4 + sheets.TILE // 2
    left = sheets.GAP + sheets.TILE // 2
    assert sheet.getpixel((left, first)) == (255, 0, 0)
    assert sheet.getpixel((left + step, first)) == sheets.PAPER
    assert sheet.getpixel((left + step, first + step)) == (255, 0, 0)
    assert sheet.size == (2 * step + sheets.GAP, 2 * step + sheets.GAP + sheets.LINE + 4)


def test_captions_wrap_within_their_picture():
    caption = "A photo of a beach with a lot of waves, a boat with a red sail and a parasol"
    lines = sheets.wrap(caption, sheets.TILE)
    assert len(lines) > 2
    endless = sheets.wrap("W" * 100_000, sheets.TILE)
    assert len(endless) == sheets.LINES
    assert endless[-1].endswith("…")
    assert all(sheets._face().getlength(line) <= sheets.TILE for line in lines + endless)


def test_spreading_takes_the_first_item_and_keeps_the_order():
    assert sheets.spread_evenly(range(5)) == [0, 1, 2, 3, 4]
    assert sheets.spread_evenly(range(100), 4) == [0, 25, 50, 75]


def test_tables_count_the_rows_that_they_leave_out():
    table = preview.caption_table(["1", "2", "3"], ["a", "b", "a"], limit=1)
    assert "3 examples, 2 distinct captions; 1 shown" in table
    row = {"id": "a", "reason": "b", "detail": ""}
    assert "9 dropped; 1 shown" in preview.dropped_table([row], 9)
    assert preview.dropped_table([], 0) == "<p>Nothing was dropped.</p>"
    assert "3 kept, 2 dropped" in preview.reasons_table(3, {"caption is empty": 2})
    assert preview.reasons_table(3, {}) == "<p>3 kept.</p>", "a table without rows has no use"


def test_the_label_of_the_token_limit_does_not_touch_its_line():
    for limit in (40, 90):
        figure = charts.length_histogram(Counter({10: 5, 100: 1}), limit)
        figure.draw_without_rendering()
        [axes] = figure.axes
        x = axes.transData.transform((limit + 0.5, 0))[0]
        box = axes.texts[0].get_window_extent()
        assert box.x0 > x + 3 or box.x1 < x - 3


def test_the_sheet_of_an_example_counts_its_numbers(tmp_path):
    cut = Image.new("RGB", (32, 16), (100, 100, 100))
    decoded = Image.new("RGB", (32, 16), (103, 100, 97))
    latents = np.arange(6 * 2 * 4, dtype=np.float32).reshape(6, 2, 4)
    path = tmp_path / "example.png"
    original = Image.new("RGB", (300, 200))
    sheets.write_example_sheet(path, original, (640, 427), cut, latents, decoded, HOSTILE)
    with Image.open(path) as sheet:
        assert sheet.text == {"caption": HOSTILE}
        assert sheet.width > 4 * sheets.TILE


def test_channels_of_latents_stand_in_a_square_on_one_scale():
    latents = np.zeros((5, 2, 3), np.float32)
    latents[4] = 1
    picture = np.asarray(sheets.latent_picture(latents))[..., 0]
    assert picture.shape == (2 * 2 + 1, 3 * 3 + 2), "two rows of three columns, and gaps"
    assert (picture[:2, :3] == 0).all() and (picture[3:, 4:7] == 255).all()
    assert (picture[3:, 8:] == 255).all(), "no sixth channel"
    assert np.isfinite(np.asarray(sheets.latent_picture(np.ones((1, 2, 2), np.float32)))).all()


def test_a_caption_is_shown_as_its_tokens(base):
    html = preview.token_table(f"a red cat {HOSTILE}", base.tokenizer(), [77, 8])
    ids = base.tokenizer()(f"a red cat {HOSTILE}").input_ids
    assert " ".join(map(str, ids)) in html and f"{len(ids)} tokens and {77 - len(ids)}" in html
    assert "<code>cat</code>" in html and "<script" not in html and "77 × 8 = 616" in html
    long = preview.token_table("a cat " * 100, base.tokenizer(), [77, 8])
    assert "77 tokens<" in long
