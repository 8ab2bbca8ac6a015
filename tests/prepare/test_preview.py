"""What is shown: every picture and word of it, and nothing that runs."""

import math
from collections import Counter

import pytest
from PIL import Image

from nbs_lib.prepare import preview as look

HOSTILE = '<script>alert("x")</script>'


def test_what_users_wrote_is_escaped():
    shown = look.caption_table([HOSTILE], [HOSTILE])
    shown += look.dropped_table(
        [{"id": HOSTILE, "reason": "image without caption", "detail": HOSTILE}], 1
    )
    shown += look.reasons_table(3, {HOSTILE: 2})
    assert "<script" not in shown and shown.count("&lt;script&gt;") == 5


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
def test_every_proportion_has_a_bar_that_can_be_seen(sizes):
    figure = look._sizes(Counter(sizes))
    figure.canvas.draw()
    for axes in figure.axes:
        shown = [bar.get_window_extent() for bar in axes.patches if bar.get_height()]
        assert sum(bar.get_height() for bar in axes.patches) == sum(sizes.values())
        assert all(bar.width > 3 and bar.height > 3 for bar in shown), "pixels"
    low, high = axes.get_xlim()
    proportions = {math.log2(width / height) for width, height in sizes}
    assert len(shown) == len(proportions) and low < min(proportions) and max(proportions) < high
    assert "1:1" in [label.get_text() for label in axes.get_xticklabels()]


def test_a_sheet_has_every_picture_at_its_place():
    colours = [(i * 20, 255 - i * 20, 7) for i in range(10)]
    sheet = look.contact_sheet(
        [Image.new("RGB", (64, 64), colour) for colour in colours], ["x"] * 10
    )
    step, middle = look.TILE + look.GAP, look.GAP + look.TILE // 2
    assert sheet.getpixel((middle + 3 * step, middle)) == colours[3]
    assert (
        sheet.getpixel((middle + step, middle + look.TILE + 4 + look.LINE + look.GAP)) == colours[9]
    )


def test_captions_wrap_within_their_picture():
    lines = look.wrap(
        "A photo of a beach with a lot of waves, a boat with a red sail and a parasol on the left",
        look.TILE,
    )
    assert len(lines) > 2 and all(look._font().getlength(line) <= look.TILE for line in lines)
    endless = look.wrap("W" * 100_000, look.TILE)
    assert len(endless) == look.LINES and endless[-1].endswith("…")
    assert all(look._font().getlength(line) <= look.TILE for line in endless)


def test_spread_takes_the_first_and_keeps_order():
    assert look.picture_sheet(range(5)) == [0, 1, 2, 3, 4]
    assert look.picture_sheet(range(100), 4) == [0, 25, 50, 75]


def test_tables_say_how_much_they_leave_out():
    assert "3 examples, 2 distinct captions; 1 shown" in look.caption_table(
        ["1", "2", "3"], ["a", "b", "a"], most=1
    )
    assert look.dropped_table([], 0) == "<p>Nothing was dropped.</p>"
    assert "9 dropped; 1 shown" in look.dropped_table([{"id": "a", "reason": "b", "detail": ""}], 9)
    assert "3 kept, 2 dropped" in look.reasons_table(3, {"caption is empty": 2})
    assert look.reasons_table(3, {}) == "<p>3 kept.</p>", "a table without rows says nothing"


def test_the_words_at_the_line_do_not_touch_it():
    for most in (40, 90):
        figure = look._lengths(Counter({10: 5, 100: 1}), most)
        figure.draw_without_rendering()
        [axes] = figure.axes
        x = axes.transData.transform((most + 0.5, 0))[0]
        box = axes.texts[0].get_window_extent()
        assert box.x0 > x + 3 or box.x1 < x - 3
