import numpy as np
from PIL import Image

from nbs_lib.compare.figures import COLOURS, LARGEST, Row, _font, bars, enlarged, frontier, grid, titled
from nbs_lib.config import REFERENCE_PROMPTS


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
    font = _font(13)
    for prompt in (*REFERENCE_PROMPTS, "very long " * 40, "x" * 300, "Ein Mädchen lächelt"):
        lines = titled(prompt, 7, True, font, 192)
        assert lines[-1] == "seed 7" and len(lines) <= 4
        assert all(font.getlength(line) <= 192 for line in lines)
    assert titled("very long " * 40, 0, False, font, 192)[-1].endswith("…")
    assert titled("A person holding a cat", 0, False, font, 192) == ["A person holding a cat"]


def test_the_bars_say_the_rates(tmp_path):
    rates = {name: {"rate": rate, "low": rate, "high": rate} for name, rate in zip(COLOURS, (0.0, 1.0, 0.5), strict=True)}
    figure = bars(rates, 100, {"unguided": 25, "guided": 50, "tuned": 25})
    [axes] = figure.axes
    assert [bar.get_width() for bar in axes.patches] == [0.0, 1.0, 0.5]
    assert [tick.get_text().split("\n") for tick in axes.get_yticklabels()][1] == ["guided", "50 NFE"]
    assert {"0 %", "100 %", "50 %"} <= {text.get_text() for text in axes.texts}
    figure.savefig(tmp_path / "rates.png")
    assert Image.open(tmp_path / "rates.png").width > 600


def test_the_frontier_joins_those_that_none_beats_in_both():
    quality = {"unguided": 0.7, "guided": 0.95, "tuned": 0.93, "selective-50": 0.9, "hybrid-20": 0.94}
    nfe = {"unguided": 25, "guided": 50, "tuned": 25, "selective-50": 38, "hybrid-20": 30}
    figure = frontier(quality, {name: {"nfe": each, "seconds": 0.1} for name, each in nfe.items()}, rates=True)
    [line] = figure.axes[0].lines
    assert list(zip(*line.get_data(), strict=True)) == [(25, 0.93), (30, 0.94), (50, 0.95)]
    assert {text.get_text().splitlines()[0] for text in figure.axes[0].texts} == set(quality)
