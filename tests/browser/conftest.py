import shutil
from collections.abc import Iterator

import pytest
from lab import FLAGS


@pytest.fixture(scope="session", autouse=True)
def program(skip_or_fail) -> str:
    """Return the installed Chromium; required first, so that without it nothing else is set up."""
    found = shutil.which("chromium")
    if found is None:
        skip_or_fail("chromium is not on PATH; on Debian: apt-get install chromium")
    return found


@pytest.fixture(scope="module")
def chromium(program) -> Iterator:
    """Yield a headless browser, closed after each module.

    Playwright's event loop would otherwise disturb other tests.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()
