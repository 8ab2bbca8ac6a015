"""The animation of the playground in README.md: `make pictures`.

A real JupyterLab runs `playground.ipynb` on the run `demo`. Chromium moves the edge between two
pictures, then votes in a blind comparison, and the pictures that it takes become a GIF.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Locator, Page, sync_playwright

from nbs_lib.files import ROOT

TOKEN = "of-this-animation-alone"
WINDOW = {"width": 1100, "height": 1400}
WIDTH = 560  # pixels of the GIF
WAIT = 120_000  # milliseconds for what a kernel must do
MOVES = 8  # steps of the edge to each side, of 4 presses each
VOTES = ("1", "2", "1")
PROMPTS = ["A person in a red shirt holding a black cat on the left"]
HOLD = 900  # milliseconds of a picture that is to be looked at
STEP = 120  # milliseconds of a picture of a movement


def notebook(run: Path, folder: Path):
    """Write the playground on a run into a folder of its own, where it is opened."""
    text = json.loads((ROOT / "notebooks" / "playground.ipynb").read_text("utf-8"))
    for cell in text["cells"]:
        if "parameters" in cell["metadata"].get("tags", []):
            cell["source"] = f"run = {str(run)!r}\nprompts = {PROMPTS!r}\npairs = {len(VOTES)}"
    (folder / "playground.ipynb").write_text(json.dumps(text), "utf-8")


@contextmanager
def jupyterlab(folder: Path) -> Iterator[str]:
    """Yield the address of a JupyterLab with its own settings, ended afterwards."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    places = {name: str(folder / name.lower()) for name in names}
    flags = [f"--ServerApp.port={port}", "--ip=127.0.0.1", "--no-browser", "--allow-root"]
    flags += [f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={folder}"]
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", *flags],
        cwd=ROOT,
        env=os.environ | places,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(20)


def _wait_for(port: int):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    sys.exit("animation: JupyterLab did not start")


def open_playground(page: Page, address: str):
    """Open the notebook and run all its cells."""
    # with a session of its own the page would restart the kernel while cells run
    session = {"path": "playground.ipynb", "name": "", "type": "notebook"}
    headers = {"Authorization": f"token {TOKEN}"}
    data = session | {"kernel": {"name": "python3"}}
    page.request.post(f"{address}/api/sessions", data=data, headers=headers)
    page.goto(f"{address}/lab/tree/playground.ipynb?token={TOKEN}")
    page.get_by_role("heading", name="Playground").wait_for(timeout=WAIT)
    idle = page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]")
    idle.wait_for(timeout=WAIT)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    page.get_by_role("region", name="Gallery").get_by_role("article").first.wait_for(timeout=WAIT)


def moved_edge(page: Page) -> list[tuple[Image.Image, int]]:
    """Return pictures of the viewer while its edge goes to both sides, with their times."""
    viewer = page.locator(".onepass-viewer").first
    edge = viewer.get_by_role("slider").first
    frames = [(taken(viewer), HOLD)]
    for key, times in (("ArrowRight", MOVES), ("ArrowLeft", 2 * MOVES), ("ArrowRight", MOVES)):
        for _ in range(times):
            for _ in range(4):
                edge.press(key)
            frames.append((taken(viewer), STEP))
    return frames


def blind_votes(page: Page) -> list[tuple[Image.Image, int]]:
    """Return pictures of a blind comparison and of its tally, with their times."""
    blind = page.get_by_role("region", name="Blind comparison")
    blind.get_by_role("button", name="Start").press("Enter")
    frames = []
    for number, choice in enumerate(VOTES, 1):
        blind.get_by_text("Which is better?").wait_for(timeout=WAIT)
        frames.append((taken(blind), HOLD))
        page.keyboard.press(choice)
        blind.get_by_text(f"{number} of {len(VOTES)} votes").wait_for(timeout=WAIT)
    blind.get_by_text(f"All {len(VOTES)} votes").wait_for(timeout=WAIT)
    return [*frames, (taken(blind), 2 * HOLD)]


def taken(part: Locator) -> Image.Image:
    """Return a picture of a part of the page, as wide as the GIF."""
    image = Image.open(BytesIO(part.screenshot())).convert("RGB")
    return image.resize((WIDTH, round(image.height * WIDTH / image.width)), Image.LANCZOS)


def write_gif(frames: list[tuple[Image.Image, int]], path: Path):
    """Write an animation that repeats; all pictures get the size of the largest one."""
    height = max(image.height for image, _ in frames)
    pages = []
    for image, _ in frames:
        page = Image.new("RGB", (WIDTH, height), "white")
        page.paste(image, (0, 0))
        pages.append(page.quantize(64))
    times = [time for _, time in frames]
    pages[0].save(path, save_all=True, append_images=pages[1:], duration=times, loop=0)


def animate(run: Path, path: Path):
    """Write the animation of a run's playground. run: its folder, which gets no vote."""
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("animation: chromium is not on PATH; on Debian: apt-get install chromium")
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        folder = Path(temporary)
        # votes are written into the run, so a copy of it is opened
        ignored = shutil.ignore_patterns("cache", "samples")
        copy = shutil.copytree(run, folder / run.name, ignore=ignored)
        (copy / "cache").symlink_to((run / "cache").resolve())
        notebook(copy, folder)
        with jupyterlab(folder) as address:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_page(viewport=WINDOW)
            open_playground(page, address)
            frames = moved_edge(page) + blind_votes(page)
            browser.close()
    write_gif(frames, path)


if __name__ == "__main__":
    animate(ROOT / "outputs" / "demo", ROOT / "docs" / "pictures" / "playground.gif")
