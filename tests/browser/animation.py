"""The README's animation of the playground, filmed in a real JupyterLab.

    .venv/bin/python tests/browser/animation.py outputs/demo docs/pictures/playground.webp

The edge between two pictures is moved, the adapter's scale is changed and drawn again, then pairs
are voted on blind. The run must be trained; what is drawn stays in its gallery.
"""

import argparse
import re
import shutil
import tempfile
import time
from io import BytesIO
from pathlib import Path

from lab import FLAGS, WAIT, Lab, jupyterlab, opened_playground, write_playground
from PIL import Image
from playwright.sync_api import Locator, expect, sync_playwright

from nbs_lib.run.run import Run

VIEWPORT = (1180, 800)
WIDTH = 920  # pixels of the animation: a README's column
MAX_BYTES = 2_000_000
QUALITIES = (80, 65, 50, 35)
MOVE, LOOK = 60, 1600  # milliseconds of a frame while something moves, and of one to be read
PROMPT = "A person in a red shirt holding a black cat on the left by day"
# A screenshot has no pointer.
POINTER = """() => {
  const pointer = document.createElement('div');
  const size = 'width: 18px; height: 24px;';
  pointer.style.cssText = `position: fixed; z-index: 99999; pointer-events: none; ${size}`;
  pointer.innerHTML = '<svg viewBox="0 0 18 24">'
    + '<path d="M1 1v18l5-4 3 7 3-1-3-7h7z" fill="black" stroke="white"/></svg>';
  document.body.append(pointer);
  document.addEventListener('mousemove', (event) => {
    pointer.style.left = event.clientX + 'px';
    pointer.style.top = event.clientY + 'px';
  }, true);
}"""


class Film:
    """Frames of a page, and what a person does on it."""

    def __init__(self, lab: Lab):
        self.lab = lab
        self.page = lab.page
        self.frames = []
        self.durations = []
        self._x, self._y = VIEWPORT[0] / 2, VIEWPORT[1] / 2

    def shoot(self, milliseconds: int):
        """Take a frame. milliseconds: that it is shown"""
        shot = Image.open(BytesIO(self.page.screenshot())).convert("RGB")
        size = (WIDTH, round(shot.height * WIDTH / shot.width))
        self.frames.append(shot.resize(size, Image.Resampling.LANCZOS))
        self.durations.append(milliseconds)

    def go_to(self, x: float, y: float, count: int = 8):
        """Move the pointer in so many frames."""
        x_0, y_0 = self._x, self._y
        for i in range(1, count + 1):
            share = i / count
            self._x, self._y = x_0 + share * (x - x_0), y_0 + share * (y - y_0)
            self.page.mouse.move(self._x, self._y)
            self.shoot(MOVE)

    def go_to_part(self, part: Locator, at: float = 0.5):
        """Move the pointer to a part of the page. at: share of its width"""
        box = part.bounding_box()
        self.go_to(box["x"] + at * box["width"], box["y"] + box["height"] / 2)

    def drag(self, part: Locator, *shares: float):
        """Drag within a part of the page from the first share of its width to the others."""
        box = part.bounding_box()
        self.go_to_part(part, shares[0])
        self.page.mouse.down()
        for share in shares[1:]:
            self.go_to(box["x"] + share * box["width"], self._y, 12)
        self.page.mouse.up()
        self.shoot(LOOK // 2)

    def click(self, part: Locator):
        """Move to a part of the page and click it."""
        self.go_to_part(part)
        part.click()
        self.shoot(MOVE)

    def shoot_until_idle(self, longest: float = 60):
        """Take frames until the drawing has ended."""
        end = time.monotonic() + longest
        while self.lab.draw.get_attribute("aria-disabled") == "true" and time.monotonic() < end:
            self.shoot(4 * MOVE)
            self.page.wait_for_timeout(150)
        self.lab.idle()

    def save(self, path: Path):
        """Write the animation with the best quality of QUALITIES below MAX_BYTES."""
        first, *others = self.frames
        for quality in QUALITIES:
            first.save(
                path,
                save_all=True,
                append_images=others,
                duration=self.durations,
                quality=quality,
                method=6,
                loop=0,
            )
            if path.stat().st_size < MAX_BYTES:
                print(f"{path}: {len(self.frames)} frames, {path.stat().st_size / 1e6:.2f} MB")
                return
        raise SystemExit(f"{path} is larger than {MAX_BYTES / 1e6:g} MB; film fewer frames")


def play(film: Film):
    """Do what the animation shows."""
    lab, page = film.lab, film.page
    lab.run_all()
    lab.idle()
    page.keyboard.press("Control+b")  # the list of files away
    page.evaluate(POINTER)
    lab.panel.evaluate("panel => panel.scrollIntoView({block: 'start'})")
    page.wait_for_timeout(500)
    film.shoot(LOOK)
    film.drag(lab.viewer.locator(".onepass-slider"), 0.5, 0.15, 0.85, 0.5)
    # of an adapter's guidance scale, or of λ where none was measured
    dial = lab.panel.get_by_role("slider", name=re.compile("of tuned$"))
    film.drag(dial, 1.0, 0.3)
    film.click(lab.draw)
    film.shoot_until_idle()
    film.shoot(LOOK)
    lab.blind.evaluate("blind => blind.scrollIntoView({block: 'start'})")
    page.wait_for_timeout(300)
    film.click(lab.blind.get_by_role("button", name="Start"))
    for choice in ("2  Right", "1  Left", "2  Right"):
        expect(lab.blind.get_by_text("Which is better?")).to_be_visible(timeout=WAIT)
        film.shoot(LOOK // 2)
        film.click(lab.blind.get_by_role("button", name=choice))
    expect(lab.blind.get_by_role("listitem")).to_be_visible(timeout=WAIT)
    film.shoot(2 * LOOK)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", help="folder of a trained run")
    parser.add_argument("file", type=Path, help="the animation, a .webp")
    arguments = parser.parse_args()
    program = shutil.which("chromium")
    if program is None:
        raise SystemExit("chromium is not on PATH; on Debian: apt-get install chromium")
    run = Run(arguments.run)
    with tempfile.TemporaryDirectory(prefix="onepass-animation-") as folder, sync_playwright() as p:
        home = Path(folder)
        write_playground(home / "notebooks", run, prompts=[PROMPT], pairs=3)
        browser = p.chromium.launch(executable_path=program, args=FLAGS)
        with jupyterlab(home) as address, opened_playground(browser, address, *VIEWPORT) as page:
            film = Film(Lab(page))
            play(film)
        browser.close()
    arguments.file.parent.mkdir(parents=True, exist_ok=True)
    film.save(arguments.file)


if __name__ == "__main__":
    main()
