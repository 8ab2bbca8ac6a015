"""Pictures of what the browser tests saw, for someone to look at."""

import os

from playwright.sync_api import Locator, Page

from nbs_lib.files import ROOT

SHOTS = ROOT / os.environ.get("ONEPASS_SCREENSHOTS", "outputs/screenshots")


def screenshot(page: Page | Locator, name: str, **how):
    """how: as Playwright takes it."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png", **how)
