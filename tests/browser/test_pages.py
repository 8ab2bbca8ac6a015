"""The pages beside the report in a browser: a run's executed notebooks, the index of runs."""

from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Browser
from shots import screenshot

from nbs_lib.pipeline.notebook_html import write_page
from nbs_lib.pipeline.runs.index_page import FILES, FOLDER, HEADS, render_page

pytestmark = pytest.mark.browser
TABLE = (
    "             right caption first  CLIP score   NFE  s a picture     MiB\n"
    "unguided        25 % [0 %, 75 %]        54.1\n"
)
LINES = """each => {
    const text = document.createRange();
    text.selectNodeContents(each);
    return text.getBoundingClientRect().height;
}"""
HEIGHT = "each => each.getBoundingClientRect().height"


def test_a_notebook_s_cells_are_as_tall_as_their_text_and_its_tables_keep_their_lines(
    chromium: Browser, tmp_path
):
    said = nbformat.v4.new_output("stream", text=TABLE)
    cell = nbformat.v4.new_code_cell("print(summary(compared))", outputs=[said])
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "n.ipynb")
    page = chromium.new_page(viewport={"width": 400, "height": 700})
    page.goto(write_page(tmp_path / "n.ipynb").as_uri())
    screenshot(page, "notebook-400")
    text, around = (page.locator(place).evaluate(HEIGHT) for place in (".input pre", ".input"))
    assert text < around < text + 20
    assert page.locator(".output_stdout pre").evaluate(HEIGHT) < 3 * text
    assert page.locator(".output_stdout pre").evaluate(
        "each => each.scrollWidth > each.clientWidth"
    ), "it scrolls sideways"
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    page.close()


def write_index(folder: Path, runs: list[dict]):
    page = render_page(FOLDER / "index.html.j2", runs=runs, heads=HEADS)
    (folder / "index.html").write_text(page)


def test_the_index_breaks_no_run_s_name_in_the_middle_of_a_word(chromium: Browser, tmp_path):
    row = dict.fromkeys(HEADS, "100 % [51 %, 100 %]") | {"seconds": 1.0, "status": "done"}
    runs = [{"row": row | {"name": "swept.rank-4.seed-0"}, "files": [], "picture": None}]
    write_index(tmp_path, runs)
    page = chromium.new_page(viewport={"width": 1400, "height": 700})
    page.goto((tmp_path / "index.html").as_uri())
    screenshot(page, "index-1400")
    assert page.locator("tbody th").evaluate(LINES) < 30, "one line"
    page.close()


def test_nothing_of_the_index_is_cut_off(chromium: Browser, tmp_path):
    """At 1,400 pixels all of it is in sight; on a telephone the table scrolls in its own box."""
    row = {
        "name": "a_name_without_any_space_or_hyphen_that_goes_on_and_on",
        "status": "interrupted",
        "recipe": "own-images",
    }
    row |= {
        "started": "2026-11-28T18:20:56",
        "seconds": 12345.6,
        "train.steps": 15000,
        "train.rank": 128,
    }
    row |= {
        "loss": 0.00012345,
        "held_out": 0.123456,
        "recovered": 1.23456,
        "distance_ratio": 0.23456,
        "rate": 0.98765,
        "compare.time_ratio": 0.512345,
    }
    files = [{"url": url, "word": word} for url, word in FILES.items()]
    write_index(tmp_path, [{"row": row, "files": files, "picture": "data:,"}] * 12)
    beyond = "each => each.scrollWidth - each.clientWidth"
    for width, all_seen in ((1400, True), (390, False)):
        page = chromium.new_page(viewport={"width": width, "height": 900})
        page.goto((tmp_path / "index.html").as_uri())
        screenshot(page, f"index-full-{width}")
        assert page.locator("html").evaluate(beyond) == 0
        assert (page.locator(".scroll").evaluate(beyond) == 0) == all_seen
        box, end = page.locator(".scroll"), page.locator("tbody tr >> nth=0").locator("a").last
        box.evaluate("each => each.scrollTo(1e6, 0)")
        reach = box.bounding_box()["x"] + box.bounding_box()["width"]
        assert end.bounding_box()["x"] + end.bounding_box()["width"] <= reach <= width
        page.close()
