"""The pages beside the report as their readers have them: a run's executed notebooks, the index of runs."""

import nbformat
import pytest
from playwright.sync_api import Browser
from shots import screenshot

from nbs_lib.pipeline.index import SHOWN, rendered
from nbs_lib.pipeline.page import write_page

pytestmark = pytest.mark.browser
TABLE = (
    "             right caption first  CLIP score   NFE  s a picture     MiB\nunguided        25 % [0 %, 75 %]        54.1\n"
)
HEIGHT = "each => each.getBoundingClientRect().height"


def test_a_notebook_s_cells_are_as_tall_as_their_text_and_its_tables_keep_their_lines(chromium: Browser, tmp_path):
    said = nbformat.v4.new_output("stream", text=TABLE)
    cell = nbformat.v4.new_code_cell("print(summary(compared))", outputs=[said])
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "n.ipynb")
    page = chromium.new_page(viewport={"width": 400, "height": 700})
    page.goto(write_page(tmp_path / "n.ipynb").as_uri())
    screenshot(page, "notebook-400")
    text, around = (page.locator(place).evaluate(HEIGHT) for place in (".input pre", ".input"))
    assert text < around < text + 20
    assert page.locator(".output_stdout pre").evaluate(HEIGHT) < 3 * text
    assert page.locator(".output_stdout pre").evaluate("each => each.scrollWidth > each.clientWidth"), "it scrolls sideways"
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    page.close()


def test_the_index_breaks_no_run_s_name_in_the_middle_of_a_word(chromium: Browser, tmp_path):
    cells = [{"name": name, "text": "100 % [51 %, 100 %]", "by": ""} for name in SHOWN]
    runs = [{"cells": [cells[0] | {"text": "swept.rank-4.seed-0"}, *cells[1:]], "files": [], "picture": None, "status": "done"}]
    (tmp_path / "index.html").write_text(rendered("index.html.j2", "index", {"runs": runs, "heads": SHOWN}))
    page = chromium.new_page(viewport={"width": 1400, "height": 700})
    page.goto((tmp_path / "index.html").as_uri())
    screenshot(page, "index-1400")
    assert page.locator("tbody th").evaluate(HEIGHT) < 60, "one line"
    page.close()
