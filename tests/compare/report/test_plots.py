from matplotlib.path import Path
from PIL import Image

from nbs_lib.compare.report.plots import dial, frontier, rate_bars
from nbs_lib.images.style import CONTENDER_COLOURS


def test_rate_bars_show_the_rates(tmp_path):
    rates = {
        name: {"rate": rate, "low": rate, "high": rate}
        for name, rate in zip(CONTENDER_COLOURS, (0.0, 1.0, 0.5), strict=True)
    }
    figure = rate_bars(rates, 100, {"unguided": 25, "guided": 50, "tuned": 25})
    [axes] = figure.axes
    assert [bar.get_width() for bar in axes.patches] == [0.0, 1.0, 0.5]
    assert [tick.get_text().split("\n") for tick in axes.get_yticklabels()][1] == [
        "guided",
        "50 NFE",
    ]
    assert {"0 %", "100 %", "50 %"} <= {text.get_text() for text in axes.texts}
    figure.savefig(tmp_path / "rates.png")
    assert Image.open(tmp_path / "rates.png").width > 600


def labels_of(figure):
    """Return the labels of points; a leader to a point is a text without letters."""
    return [text for text in figure.axes[0].texts if text.get_text()]


def test_few_steps_beside_many_are_apart():
    nfe = {"tuned in 1 step": 1, "tuned": 4, "guided": 50}
    costs = {name: {"nfe": value, "seconds": 0.1} for name, value in nfe.items()}
    axes = frontier(dict.fromkeys(nfe, 0.9), costs, rates=True).axes[0]
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "4", "50"]


def test_the_frontier_joins_contenders_that_no_other_beats():
    quality = {
        "unguided": 0.7,
        "guided": 0.95,
        "tuned": 0.93,
        "selective-50": 0.9,
        "hybrid-20": 0.94,
    }
    nfe = {"unguided": 25, "guided": 50, "tuned": 25, "selective-50": 38, "hybrid-20": 30}
    figure = frontier(
        quality, {name: {"nfe": value, "seconds": 0.1} for name, value in nfe.items()}, rates=True
    )
    [line] = figure.axes[0].lines
    assert list(zip(*line.get_data(), strict=True)) == [(25, 0.93), (30, 0.94), (50, 0.95)]
    assert {text.get_text().split(",")[0] for text in labels_of(figure)} == set(quality)


def test_labels_stand_beside_the_line_and_rates_are_in_percent():
    quality = {
        "unguided": 0.25,
        "guided": 0.93,
        "tuned": 0.9,
        "selective-50": 0.9,
        "hybrid-20": 0.91,
    }
    nfe = {"unguided": 25, "guided": 50, "tuned": 25, "selective-50": 38, "hybrid-20": 30}
    [axes] = frontier(
        quality, {name: {"nfe": value, "seconds": 0.1} for name, value in nfe.items()}, rates=True
    ).axes
    line = Path(axes.transData.transform(axes.lines[0].get_xydata()))
    assert not any(line.intersects_bbox(text.get_window_extent(), False) for text in axes.texts)
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "20 %",
        "40 %",
        "60 %",
        "80 %",
        "100 %",
    ]


def test_points_that_coincide_are_rings_and_the_smaller_ones_lie_above():
    costs = {name: {"nfe": 25, "seconds": 0.1} for name in CONTENDER_COLOURS}
    [axes] = frontier(dict.fromkeys(CONTENDER_COLOURS, 0.5), costs, rates=True).axes
    [large, middle, small] = [float(dots.get_sizes()[0]) for dots in axes.collections]
    assert large**0.5 - 5 > middle**0.5 > small**0.5 + 5


def test_labels_of_points_that_coincide_do_not_overlap(tmp_path):
    names = [
        "unguided",
        "guided",
        "tuned",
        "selective-20",
        "selective-50",
        "hybrid-20",
        "tuned at 0.5",
        "guided at 2",
    ]
    quality = dict.fromkeys(names, 0.5) | {"unguided": 0.49}
    figure = frontier(
        quality,
        {name: {"nfe": 25 + i % 2, "seconds": 0.1} for i, name in enumerate(names)},
        rates=True,
    )
    figure.savefig(tmp_path / "frontier.png")
    boxes = [text.get_window_extent() for text in labels_of(figure)]
    page = figure.bbox
    for i, box in enumerate(boxes):
        assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1
        assert not any(box.overlaps(other) for other in boxes[:i])


def test_the_dial_is_drawn_beside_the_diagonal():
    rows = [
        {"target": target, "w": w, "low": w - 0.5, "high": w + 0.5}
        for target, w in ((1.5, 2.0), (4.0, 3.0))
    ]
    figure = dial(rows)
    expected, measured, *intervals = figure.axes[0].lines
    assert list(expected.get_ydata()) == [1, 4] and list(measured.get_ydata()) == [2, 3]
    assert [list(value.get_ydata()) for value in intervals] == [[1.5, 2.5], [2.5, 3.5]]
