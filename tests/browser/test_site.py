"""The documentation's site, as `make docs` builds it: read from disk, with no network."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Browser
from shots import screenshot

from nbs_lib.files import ROOT

pytestmark = pytest.mark.browser
PAGES = ("index", "choosing", "how-it-works", "reference/parameters", "reference/command")
WIDTHS = (390, 1400)


@pytest.fixture(scope="module")
def site(tmp_path_factory, skip_or_fail) -> Path:
    """Return the folder of the built site."""
    if importlib.util.find_spec("mkdocs") is None:
        skip_or_fail("MkDocs is not installed; `make docs` installs it")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "-d", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_its_window_and_asks_no_server(chromium: Browser, site, name, width):
    context = chromium.new_context(viewport={"width": width, "height": 900}, offline=True)
    page, asked = context.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((site / f"{name}.html").as_uri())
    screenshot(page, f"site-{name.replace('/', '-')}-{width}", full_page=name == "index")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    pictures = page.locator("article img").evaluate_all("all => all.map(each => each.naturalWidth)")
    assert all(pictures), "a picture is missing"
    assert all(url.startswith(("file:", "data:", "blob:")) for url in asked), asked
    context.close()


def test_formulas_are_drawn_by_the_browser_itself(chromium: Browser, site):
    page = chromium.new_page()
    page.goto((site / "how-it-works.html").as_uri())
    assert page.locator("math").count() > 40
    page.close()


def test_the_search_finds_a_parameter(chromium: Browser, site):
    page = chromium.new_page(viewport={"width": 1400, "height": 900})
    page.goto((site / "index.html").as_uri())
    # the theme's key for its search
    page.keyboard.press("s")
    page.keyboard.type("huber_c")
    page.get_by_role("link", name="Parameters").last.wait_for(timeout=20_000)
    page.get_by_text("1 matching document").wait_for(timeout=20_000)
    page.close()
