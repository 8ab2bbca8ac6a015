"""A real JupyterLab of its own, and the playground in it by the names that a person reads."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
from playwright.sync_api import Browser, Locator, Page, expect
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from nbs_lib.files import ROOT
from nbs_lib.run.run import Run

TOKEN = "of-this-test-alone"
# of Chromium
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
QUIET = {"fetchNews": "false", "checkForUpdates": False}
WAIT = 180_000  # milliseconds for what a kernel must do; on a busy machine it starts slowly
NOTIFICATIONS = "@jupyterlab/apputils-extension/notification.jupyterlab-settings"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def write_playground(folder: Path, run: Run, more: tuple[str, ...] = (), **parameters: Any):
    """Write the playground's notebook with these parameters, and with more cells at its end."""
    notebook = nbformat.read(ROOT / "notebooks" / "playground.ipynb", 4)
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    for name, value in {"run": str(run.folder), **parameters}.items():
        line = f"{name} = {value!r}"
        # a function: a path may hold what a pattern's replacement reads as its own signs
        source, count = re.subn(rf"(?m)^{name} = .*$", lambda _, line=line: line, tagged[0].source)
        assert count == 1, name
        tagged[0].source = source
    notebook.cells += [nbformat.v4.new_code_cell(source) for source in more]
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, folder / "playground.ipynb")


@contextmanager
def jupyterlab(home: Path) -> Iterator[str]:
    """Yield the address of a JupyterLab on home/notebooks, with settings of its own."""
    settings = home / "settings" / NOTIFICATIONS
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps(QUIET))
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")
    places = {name: str(home / name.lower()) for name in names} | {
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "JUPYTER_NO_CONFIG": "1",
    }
    port = free_port()
    flags = [
        "--ip=127.0.0.1",
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        "--no-browser",
        "--allow-root",
        f"--IdentityProvider.token={TOKEN}",
        f"--ServerApp.root_dir={home / 'notebooks'}",
        "--LabApp.extension_manager=readonly",
    ]
    log_file = home / "log.txt"
    with log_file.open("w") as log:
        command = [sys.executable, "-m", "jupyterlab", *flags]
        environment = os.environ | places
        server = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        try:
            wait_for(port, server, log_file)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()  # it ends its kernels
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()


def wait_for(port: int, server: subprocess.Popen, log: Path, seconds: float = 60):
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")


@contextmanager
def opened_playground(
    browser: Browser, address: str, width: int = 1400, height: int = 1300
) -> Iterator[Page]:
    """Yield the playground with a ready kernel, then check that no other host was asked."""
    context = browser.new_context(
        viewport={"width": width, "height": height},
        permissions=["clipboard-read", "clipboard-write"],
    )
    page, asked = context.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    page.on("websocket", lambda socket: asked.append(socket.url.replace("ws:", "http:", 1)))
    # without a Jupyter session of its own, the page starts, stops and restarts a kernel while it
    # loads, and cells that run meanwhile are lost
    session = {
        "path": "playground.ipynb",
        "name": "",
        "type": "notebook",
        "kernel": {"name": "python3"},
    }
    begun = page.request.post(
        f"{address}/api/sessions", data=session, headers={"Authorization": f"token {TOKEN}"}
    )
    assert begun.ok, begun.text()
    page.goto(f"{address}/lab/tree/playground.ipynb?token={TOKEN}")
    page.get_by_role("heading", name="Playground").wait_for(timeout=WAIT)
    page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").wait_for(timeout=WAIT)
    yield page
    context.close()
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []


class Lab:
    """The parts of the opened page, by the names that a person who does not see it would hear."""

    def __init__(self, page: Page):
        self.page = page
        self.panel = page.get_by_role("group", name="What is to be drawn")
        self.viewer = page.locator(".onepass-viewer").first
        self.gallery = page.get_by_role("region", name="Gallery")
        self.blind = page.get_by_role("region", name="Blind comparison")
        self.draw = self.panel.get_by_role("button", name="Draw", exact=True)
        self.prompts = self.panel.get_by_label("Prompts, one a line")
        self.rows = self.gallery.get_by_role("article")

    def run_all(self):
        """Run all cells, to the end of the last one."""
        outputs = self.page.locator(".jp-Notebook .jp-CodeCell").last.locator(
            ".jp-OutputArea-output"
        )
        waiting = self.page.locator(".jp-Notebook .jp-InputPrompt", has_text="[*]:")
        # JupyterLab forgets the cells that wait while it connects to the kernel once more, which
        # it does seldom after a page has loaded; a person presses again
        for _ in range(3):
            self.page.get_by_role("menuitem", name="Run", exact=True).click()
            self.page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
            try:
                outputs.first.wait_for(timeout=WAIT / 2)
            except PlaywrightTimeout:
                # slow cells are not forgotten ones
                if waiting.count():
                    break
            else:
                return
        expect(outputs.first).to_be_visible(timeout=WAIT)

    def drawn(self) -> list[str]:
        """Return the pictures of the newest row, once the drawing has ended."""
        self.idle()
        return self.rows.first.locator("img").evaluate_all("all => all.map(img => img.src)")

    def idle(self):
        expect(self.draw).to_have_attribute("aria-disabled", "false", timeout=WAIT)

    def says(self, words: str):
        """Check what stands beside the button."""
        expect(self.panel.get_by_role("alert")).to_contain_text(words, timeout=WAIT)

    def number(self, name: str) -> Locator:
        """Return the field beside a contender's slider."""
        return self.panel.get_by_label(f"{name}, as a number")
