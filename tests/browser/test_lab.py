"""The playground in a real JupyterLab: what a person types, clicks and moves."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from nbs_lib.files import ROOT
from nbs_lib.run import Run

pytestmark = pytest.mark.browser
TOKEN = "of-this-test-alone"
QUIET = {"fetchNews": "false", "checkForUpdates": False}
WAIT = 60_000  # milliseconds for what a kernel must do; on a busy machine it starts slowly


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


CHOICES = "from nbs_lib.compare.viewer import slider\nchoices = slider(run)\nchoices"
TOLD = (
    "print('kernel:', play.slider.position, f'{play.adapter_scale.value:.2f}', play.prompt.value, choices.children[2].position)"
)


def playground_of(run: Run, folder: Path):
    """The playground on this run, quick; and two cells more: the slider of 3_compare, and what the kernel knows."""
    notebook = nbformat.read(ROOT / "notebooks" / "playground.ipynb", 4)
    [parameters] = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    for given, ours in (('"outputs/demo"', repr(str(run.folder))), ("steps: int = 25", "steps: int = 2")):
        assert given in parameters.source
        parameters.source = parameters.source.replace(given, ours)
    notebook.cells += [nbformat.v4.new_code_cell(source) for source in (CHOICES, TOLD)]
    nbformat.write(notebook, folder / "playground.ipynb")


@pytest.fixture(scope="module")
def lab(compared: Run, one_thread, tmp_path_factory) -> Iterator[str]:
    """The address of a JupyterLab of its own: notebooks, settings and workspaces in a folder of the test."""
    home = tmp_path_factory.mktemp("my läb")
    (home / "notebooks").mkdir()
    playground_of(compared, home / "notebooks")
    settings = home / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps(QUIET))
    places = {name: str(home / name.lower()) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")}
    places |= {"IPYTHONDIR": str(home / "ipython"), "JUPYTERLAB_SETTINGS_DIR": str(home / "settings")}
    places |= {"JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"), "JUPYTER_NO_CONFIG": "1"}
    port = free_port()
    flags = ["--ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=0", "--no-browser", "--allow-root"]
    flags += [f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={home / 'notebooks'}"]
    flags += [
        "--LabApp.extension_manager=readonly",
    ]
    with (home / "log.txt").open("w") as log:
        command = [sys.executable, "-m", "jupyterlab", *flags]
        server = subprocess.Popen(command, cwd=ROOT, env=os.environ | places, stdout=log, stderr=log)
        try:
            wait_for(port, server, home / "log.txt")
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
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")


@pytest.fixture
def notebook(chromium: Browser, lab: str) -> Iterator[Page]:
    """The playground, opened and its kernel ready; afterwards: nothing was asked of another host."""
    context = chromium.new_context(viewport={"width": 1400, "height": 1300})
    page, asked = context.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    page.on("websocket", lambda socket: asked.append(socket.url.replace("ws:", "http:", 1)))
    # a kernel of its own would be started, stopped and started again while the page loads, and lose what is run meanwhile
    session = {"path": "playground.ipynb", "name": "", "type": "notebook", "kernel": {"name": "python3"}}
    begun = page.request.post(f"{lab}/api/sessions", data=session, headers={"Authorization": f"token {TOKEN}"})
    assert begun.ok, begun.text()
    page.goto(f"{lab}/lab/tree/playground.ipynb?token={TOKEN}")
    page.get_by_role("heading", name="Playground").wait_for(timeout=WAIT)
    page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").wait_for(timeout=WAIT)
    yield page
    context.close()
    assert [url for url in asked if not url.startswith((lab, "data:", "blob:"))] == []


def sources(cell: Locator) -> list[str]:
    return cell.locator("img").evaluate_all("all => all.map(img => img.src)")


def drawn_anew(page: Page, cell: Locator) -> list[str]:
    """Click Draw, wait until it has ended, and give what is shown: guided, tuned, and the slider's, which are tuned, guided."""
    # the kernel writes the tuned figure anew; guided's may stay as it is, to the hundredth of a second
    cell.locator("figure").nth(1).evaluate("figure => figure.dataset.old = 1")
    cell.get_by_role("button", name="Draw").click()
    cell.locator("figure[data-old]").wait_for(state="detached", timeout=WAIT)
    expect(cell.get_by_role("button", name="Draw")).to_be_enabled()
    page.wait_for_function("([a, b]) => a.src === b.src", arg=cell.locator("img").element_handles()[1:3])
    return sources(cell)


def asked_kernel(page: Page, answer: str):
    """Run the last cell again; what it says is this."""
    cell = page.locator(".jp-CodeCell", has_text="print('kernel:'")
    cell.locator(".cm-content").click()
    page.keyboard.press("Control+Enter")
    expect(cell.locator(".jp-OutputArea-output")).to_have_text(answer, timeout=WAIT)


def test_a_person_types_draws_and_moves(notebook: Page):
    page = notebook
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    expect(page.locator(".jp-OutputArea-output", has_text="kernel: 50 1.00 A person")).to_be_visible(timeout=WAIT)
    cell = page.locator(".jp-CodeCell", has=page.get_by_role("button", name="Draw"))
    guided, tuned, *edge = sources(cell)
    assert guided != tuned and edge == [tuned, guided]

    page.get_by_label("Prompt", exact=True).first.fill("A blue house")
    house = drawn_anew(page, cell)
    assert house[0] != guided and house[1] != tuned and house[2:] == [house[1], house[0]]
    assert cell.get_by_role("img", name="tuned: A blue house").count() == 2, "by itself and in the slider"

    scale = cell.locator(".widget-hslider", has_text="Adapter scale")
    scale.get_by_role("slider").focus()
    for key, value in (("ArrowRight", "1.05"), ("ArrowRight", "1.10"), ("ArrowLeft", "1.05")):
        page.keyboard.press(key)
        expect(scale.locator(".widget-readout")).to_have_text(value)
    scaled = drawn_anew(page, cell)
    assert scaled[0] == house[0] and scaled[1] != house[1], "it is for tuned alone"

    for _ in range(3):
        cell.locator("input[type=range]").press("ArrowRight")
    clip = cell.locator("img.before").evaluate("img => getComputedStyle(img).clipPath")
    assert clip == "inset(0px 47% 0px 0px)"
    asked_kernel(page, "kernel: 53 1.05 A blue house 50")

    choices = page.locator(".jp-CodeCell", has=page.get_by_label("Pair", exact=True))
    before = sources(choices)
    choices.get_by_label("Pair", exact=True).select_option("guided | tuned")
    expect(choices.locator(".label.left")).to_have_text("guided")
    assert sources(choices)[0] == before[0] and sources(choices)[1] != before[1], "tuned stays, the left picture changes"
    choices.get_by_label("Prompt", exact=True).select_option("A boy is watching TV (seed 3)")
    expect(choices.get_by_role("img", name="guided: A boy is watching TV")).to_have_count(1)
    choices.locator("input[type=range]").press("Home")
    asked_kernel(page, "kernel: 53 1.05 A blue house 0")
    assert page.locator(".jp-OutputArea-output", has_text="Traceback").count() == 0
