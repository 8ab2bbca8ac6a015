"""The reference pages by file name."""

from collections.abc import Callable
from pathlib import Path

from ..files import ROOT
from . import api, command, figures, formats, parameters, recipes

FOLDER = ROOT / "docs" / "reference"
PAGES: dict[str, Callable[[], str]] = {
    "parameters.md": parameters.page,
    "recipes.md": recipes.page,
    "command.md": command.page,
    "api.md": api.page,
    "formats.md": formats.page,
}


def write_pages() -> list[Path]:
    """Write every page, and the figures of the others; return the paths of those that changed."""
    texts = {FOLDER / name: page() for name, page in PAGES.items()}
    for path in figures.pages():
        texts[path] = figures.fill(path.read_text("utf-8"))
    changed = []
    for path, text in texts.items():
        # what is unchanged keeps its time, and is not reported
        if not path.is_file() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
            changed.append(path)
    return changed
