"""The axes of a grid, read from text."""

import re

import pytest

from nbs_lib.config.grid_axes import Axis, parse_axes


@pytest.mark.parametrize(
    ("texts", "message"),
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
def test_wrong_axes_are_refused_in_words(texts, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_axes(texts)


def test_axes_are_read_as_they_are_written():
    assert parse_axes([]) == []
    columns, rows = parse_axes(["prompt: A cat, asleep | A dog: awake", " w : 1 | 2.5"])
    assert columns == Axis("prompt", ("A cat, asleep", "A dog: awake")) and rows == Axis(
        "w", (1.0, 2.5)
    )
    assert (
        rows.label(2.5) == "w 2.5"
        and Axis("scheduler", ("LCMScheduler",)).label("LCMScheduler") == "LCM"
    )
