"""Pictures of what the browser tests saw, for someone to look at."""

import os
import tempfile
from pathlib import Path

from playwright.sync_api import Locator, Page

# outside outputs/, which holds a user's runs
FOLDER = Path(tempfile.gettempdir()) / "onepass-screenshots"
SHOTS = Path(os.environ.get("ONEPASS_SCREENSHOTS", FOLDER))


def screenshot(page: Page | Locator, name: str, **how):
    """how: as Playwright takes it."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png", **how)
