"""The pictures of README.md and docs/ from the runs `demo` and `frontier`: `make pictures`.

Both runs are executed first; what is done and unchanged is not done again. The picture of the
report is taken by Chromium, and the playground is filmed in it. `few-steps.png` is drawn by
`make bench-few-steps`.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image

from nbs_lib.files import ROOT
from nbs_lib.pipeline import run

DOCS = ROOT / "docs"
# by file in docs/: the run, its file, and the width that is shown, 0 for all
PICTURES = {
    "demo.png": ("demo", "compare/grid.png", 0),
    "pictures/loss.png": ("demo", "loss.png", 0),
    "pictures/usage.png": ("demo", "usage.png", 0),
    "pictures/validation.png": ("demo", "validation.png", 0),
    # the first three of ten prompts: with six rows, all of them would be a large picture
    "pictures/contenders.png": ("frontier", "compare/grid.png", 752),
    "pictures/frontier.png": ("frontier", "compare/frontier.png", 0),
    "pictures/differences.png": ("frontier", "compare/differences.png", 0),
    "pictures/steps.png": ("frontier", "compare/steps.png", 0),
    "pictures/dial.png": ("frontier", "compare/dial.png", 0),
}
PLAYGROUND = "pictures/playground.webp"
FILM = ROOT / "tests" / "browser" / "animation.py"
REPORT = "pictures/report.png"
# the head of the report and its first table
REPORT_SIZE = {"width": 1100, "height": 840}
MAX_BYTES = 240_000  # of a picture in a page, which is read over a network too


def save(image: Image.Image, path: Path):
    """Write a PNG: in full colour if it is small enough, else in 256 colours."""
    image.convert("RGB").save(path, optimize=True)
    if path.stat().st_size > MAX_BYTES:
        image.convert("RGB").quantize(256).save(path, optimize=True)


def photograph(page: Path, path: Path):
    """Write a picture of the head of an HTML page."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("pictures: chromium is not on PATH; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        opened = browser.new_page(viewport=REPORT_SIZE, color_scheme="light")
        opened.goto(page.resolve().as_uri())
        opened.screenshot(path=path)
        browser.close()
    with Image.open(path) as image:
        image.load()
    save(image, path)


def main():
    folders = {name: run(name).folder for name in ("demo", "frontier")}
    for name, (source, file, width) in PICTURES.items():
        with Image.open(folders[source] / file) as image:
            save(image.crop((0, 0, width or image.width, image.height)), DOCS / name)
    photograph(folders["demo"] / "report.html", DOCS / REPORT)
    subprocess.run([sys.executable, FILM, folders["demo"], DOCS / PLAYGROUND], check=True)


if __name__ == "__main__":
    main()
