"""The library reads as well as it did: the figures of `make style` stay within their limits."""

import pytest
from style import LIBRARY, measure

LIMITS = {
    "house words per 1,000 lines": 10,
    "docstrings that begin Of, What, Where, ...": 0,
    "function lines, median": 8,
    "function lines, 90 %": 25,
    "function lines, longest": 60,
    "module lines, longest": 250,
    "files in a folder, most": 13,
}


@pytest.fixture(scope="module")
def figures() -> dict[str, float]:
    return measure(LIBRARY)


@pytest.mark.parametrize("figure", LIMITS)
def test_a_figure_is_within_its_limit(figures, figure):
    assert figures[figure] <= LIMITS[figure]


def test_comments_give_reasons_on_enough_lines(figures):
    assert figures["comments, % of lines"] >= 6


def test_the_figures_of_a_small_library_are_as_counted_by_hand(tmp_path):
    (tmp_path / "module.py").write_text(
        '"""Of nothing."""\n'
        "\n"
        "\n"
        "def told(path):  # a reason\n"
        '    """Return sums."""\n'
        "    return [sum(x for x in row) for row in path]\n"
    )
    figures = measure(tmp_path)
    assert figures["lines"] == 6 and figures["docstrings"] == 2
    assert figures["docstrings that begin Of, What, Where, ..."] == 1
    assert figures["house words per 1,000 lines"] == 166.7, "one name of six lines: told"
    assert figures["comments, % of lines"] == 16.7
    assert figures["nested comprehensions"] == 1 and figures["function lines, longest"] == 3
