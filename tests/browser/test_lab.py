"""The playground in a real JupyterLab: what a person types, clicks and moves."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Browser, Page, expect
from shots import screenshot

from nbs_lib.compare.playground.blind_test import tally_votes
from nbs_lib.files import ROOT, read_jsonl
from nbs_lib.pipeline.recipes import configs
from nbs_lib.run.run import Run

pytestmark = pytest.mark.browser
TOKEN = "of-this-test-alone"
QUIET = {"fetchNews": "false", "checkForUpdates": False}
WAIT = 60_000  # milliseconds for what a kernel must do; on a busy machine it starts slowly


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


CHOICES = "from nbs_lib.compare.playground.viewer import slider\nchoices = slider(run)\nchoices"
TOLD = (
    "print('kernel:', play.viewer.position, play.panel.scales['tuned'], play.panel.prompts, "
    "choices.children[2].position)"
)


def playground_of(run: Run, folder: Path):
    """Write a quick playground on this run, with two more cells.

    The cells show the slider of 3_compare, and the state in the kernel.
    """
    notebook = nbformat.read(ROOT / "notebooks" / "playground.ipynb", 4)
    [parameters] = [
        cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])
    ]
    for given, ours in (
        ('"outputs/notebook"', repr(str(run.folder))),
        ("steps = 25", "steps = 2"),
    ):
        assert given in parameters.source
        parameters.source = parameters.source.replace(given, ours)
    notebook.cells += [nbformat.v4.new_code_cell(source) for source in (CHOICES, TOLD)]
    nbformat.write(notebook, folder / "playground.ipynb")


@pytest.fixture(scope="module")
def run(compared: Run, add_run_on_another_base, tmp_path_factory) -> Run:
    """A run to write into; beside it one that still trains, and one on another base."""
    outputs = tmp_path_factory.mktemp("my rüns") / "outputs"
    shutil.copytree(compared.folder, outputs / "tiny", symlinks=True)
    Run(outputs / "training").update(stages={"train": {"status": "running"}})
    add_run_on_another_base(outputs)
    return Run(outputs / "tiny")


@pytest.fixture(scope="module")
def lab(run: Run, one_thread, tmp_path_factory) -> Iterator[str]:
    """Yield the address of a JupyterLab with its own notebooks, settings and workspaces."""
    home = tmp_path_factory.mktemp("my läb")
    shutil.copytree(ROOT / "notebooks", home / "notebooks")
    playground_of(run, home / "notebooks")
    settings = (
        home
        / "settings"
        / "@jupyterlab"
        / "apputils-extension"
        / "notification.jupyterlab-settings"
    )
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps(QUIET))
    places = {
        name: str(home / name.lower())
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")
    }
    places |= {
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
    }
    places |= {"JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"), "JUPYTER_NO_CONFIG": "1"}
    port = free_port()
    flags = [
        "--ip=127.0.0.1",
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        "--no-browser",
        "--allow-root",
    ]
    flags += [f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={home / 'notebooks'}"]
    flags += [
        "--LabApp.extension_manager=readonly",
    ]
    with (home / "log.txt").open("w") as log:
        command = [sys.executable, "-m", "jupyterlab", *flags]
        server = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | places, stdout=log, stderr=log
        )
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
    """Yield the opened playground with a ready kernel, then check that no other host was asked."""
    context = chromium.new_context(
        viewport={"width": 1400, "height": 1300}, permissions=["clipboard-read", "clipboard-write"]
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
        f"{lab}/api/sessions", data=session, headers={"Authorization": f"token {TOKEN}"}
    )
    assert begun.ok, begun.text()
    page.goto(f"{lab}/lab/tree/playground.ipynb?token={TOKEN}")
    page.get_by_role("heading", name="Playground").wait_for(timeout=WAIT)
    page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").wait_for(timeout=WAIT)
    yield page
    context.close()
    assert [url for url in asked if not url.startswith((lab, "data:", "blob:"))] == []


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
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        expect(self.page.locator(".jp-OutputArea-output", has_text="kernel: 50 1")).to_be_visible(
            timeout=WAIT
        )

    def drawn(self) -> list[str]:
        """Return the pictures of the newest row, once the drawing has ended."""
        self.idle()
        return self.rows.first.locator("img").evaluate_all("all => all.map(img => img.src)")

    def idle(self):
        expect(self.draw).to_have_attribute("aria-disabled", "false", timeout=WAIT)

    def says(self, words: str):
        expect(self.viewer.get_by_role("alert")).to_contain_text(words, timeout=WAIT)

    def asked_kernel(self, answer: str):
        """Run the last cell again; what it says is this."""
        cell = self.page.locator(".jp-CodeCell", has_text="print('kernel:'")
        cell.locator(".cm-content").click()
        self.page.keyboard.press("Control+Enter")
        expect(cell.locator(".jp-OutputArea-output")).to_have_text(answer, timeout=WAIT)


NAMELESS = """() => [...document.querySelectorAll(
    '.onepass-live :is(button, input, select, textarea), .onepass-live img')]
  .filter((each) => each.checkVisibility())
  .filter((each) => !(each.tagName === 'IMG' ? each.alt
    : each.ariaLabel || each.textContent && each.tagName === 'BUTTON'
    || [...(each.labels || [])].some((label) => label.textContent.trim())))
  .map((each) => each.outerHTML.slice(0, 200))"""


@pytest.fixture
def opened(notebook: Page) -> Lab:
    lab = Lab(notebook)
    lab.run_all()
    return lab


def test_a_person_types_draws_and_moves(opened: Lab, run: Run):
    lab, page, keys = opened, opened.page, opened.page.keyboard
    screenshot(page, "playground-opened")
    guided, tuned = lab.drawn()
    assert guided != tuned and page.evaluate(NAMELESS) == []

    lab.prompts.click()
    keys.press("Control+a")
    keys.type("A blue house")
    keys.press("Control+Enter")
    expect(lab.rows).to_have_count(2, timeout=WAIT)
    house = lab.drawn()
    assert house[0] != guided and house[1] != tuned
    expect(lab.viewer.get_by_role("img", name="tuned: A blue house (seed 0)")).to_be_visible()

    lab.panel.get_by_role("slider", name="λ of tuned").focus()
    for key, value in (("ArrowRight", "1.05"), ("ArrowRight", "1.1"), ("ArrowLeft", "1.05")):
        keys.press(key)
        expect(lab.panel.get_by_label("λ of tuned, as a number")).to_have_value(value)
    lab.draw.press("Enter")
    expect(lab.rows).to_have_count(3, timeout=WAIT)
    scaled = lab.drawn()
    assert scaled[0] == house[0] and scaled[1] != house[1], "it is for tuned alone"
    expect(lab.viewer.get_by_role("img", name="tuned at 1.05: A blue house")).to_be_visible()

    edge = lab.viewer.get_by_role("slider", name="How much is guided: A blue house (seed 0)")
    for _ in range(3):
        edge.press("ArrowRight")
    clip = lab.viewer.locator("img.before").evaluate("img => getComputedStyle(img).clipPath")
    assert clip == "inset(0px 47% 0px 0px)"
    lab.asked_kernel("kernel: 53 1.05 A blue house 50")
    screenshot(lab.viewer, "viewer-slider")

    lab.viewer.get_by_role("radio", name="slider").focus()
    for mode in ("side by side", "difference", "flip"):
        keys.press("ArrowRight")
        expect(lab.viewer.get_by_role("radio", name=mode)).to_be_checked()
        screenshot(lab.viewer, f"viewer-{mode.replace(' ', '-')}")
    keys.press("Tab")
    expect(lab.viewer.locator(".label.left")).to_be_visible()
    keys.press("Space")
    expect(lab.viewer.locator(".label.right")).to_be_visible()
    expect(lab.viewer.locator(".label.left")).to_be_hidden()
    assert page.evaluate(NAMELESS) == []

    lab.rows.nth(2).get_by_role("button", name="Look at tuned: A person in a red shirt").press(
        "Enter"
    )
    expect(lab.viewer.get_by_role("img", name="tuned: A person in a red shirt")).to_be_attached()
    lab.rows.first.get_by_role("button", name="Save to the run: A blue house").press("Enter")
    expect(lab.rows.first.get_by_role("status")).to_contain_text("Saved: ")
    assert sorted(
        row["contender"] for row in read_jsonl(run.folder / "gallery" / "gallery.jsonl")
    ) == [
        "guided",
        "tuned at 1.05",
    ]
    lab.rows.first.get_by_role("button", name="Copy as a recipe").press("Enter")
    expect(lab.rows.first.get_by_role("status")).to_contain_text("copied")
    recipe = run.folder / "copied.yaml"
    recipe.write_text(page.evaluate("navigator.clipboard.readText()"), encoding="utf-8")
    assert "tuned at 1.05" in configs(str(recipe), run.folder)["compare"].contenders
    screenshot(lab.gallery, "gallery")
    assert page.locator(".jp-OutputArea-output", has_text="Traceback").count() == 0


def test_a_long_sampling_is_stopped_and_the_page_answers_meanwhile(opened: Lab):
    lab, page = opened, opened.page
    lab.prompts.fill("\n".join(f"A house, number {i}" for i in range(60)))
    lab.panel.get_by_label("Steps", exact=True).fill("100")
    lab.draw.click()
    bar = lab.panel.get_by_role("progressbar")
    page.wait_for_function("bar => bar.value > 2", arg=bar.element_handle(), timeout=WAIT)
    assert bar.get_attribute("max") == "300", "steps of three batches"
    lab.panel.get_by_role("slider", name="λ of tuned").press("ArrowRight")
    lab.asked_kernel(f"kernel: 50 1.05 {' '.join(f'A house, number {i}' for i in range(60))} 50")
    lab.draw.scroll_into_view_if_needed()
    screenshot(page, "sampling")
    lab.panel.get_by_role("button", name="Stop").click()
    lab.says("Stopped; nothing was finished.")
    lab.idle()
    expect(lab.rows).to_have_count(1)
    screenshot(page, "stopped")
    lab.prompts.fill("A red house")
    lab.panel.get_by_label("Steps", exact=True).fill("2")
    lab.draw.click()
    expect(lab.viewer.get_by_role("img", name="tuned at 1.05: A red house")).to_be_visible(
        timeout=WAIT
    )


def test_what_cannot_be_drawn_is_said_above_the_picture(opened: Lab, base):
    lab, page = opened, opened.page
    expect(lab.panel.get_by_text("its training has not ended")).to_be_visible()
    expect(
        lab.panel.get_by_text(
            f"of another base, another-base (01234567); this page's is embedded ({base.hash:.8})"
        )
    ).to_be_visible()
    lab.prompts.fill("  ")
    lab.draw.click()
    lab.says("The prompt is empty")
    expect(lab.viewer.get_by_role("img", name="tuned: A person in a red shirt")).to_be_visible()
    screenshot(page, "empty-prompt")
    lab.prompts.fill("a cat")
    lab.panel.get_by_label("w of guided, as a number").fill("50")
    lab.draw.click()
    lab.says("w of guided: given 50; allowed is a number from 1 to 20")
    lab.panel.get_by_label("w of guided, as a number").fill("3")
    lab.panel.get_by_label("λ of tuned, as a number").fill("7")
    lab.draw.click()
    lab.says("λ of tuned: given 7; allowed is a number from -1 to 3")
    lab.panel.get_by_label("λ of tuned, as a number").fill("")
    lab.draw.click()
    lab.says("λ of tuned is empty")
    lab.panel.get_by_label("λ of tuned, as a number").fill("1")
    lab.panel.get_by_label("Steps", exact=True).fill("")
    lab.draw.click()
    lab.says("steps is empty")
    lab.panel.get_by_label("Steps", exact=True).fill("2")
    lab.panel.get_by_label("Others, one a line").fill("best")
    lab.prompts.fill("cat " * 1000)
    lab.draw.click()
    expect(lab.panel.get_by_role("status")).to_contain_text(
        "The text encoder reads 40 tokens, and the prompt has 1002", timeout=WAIT
    )
    expect(lab.viewer.locator(".words.right")).to_contain_text(
        "contender: given 'best'; allowed is"
    )
    screenshot(page, "refused")
    assert page.locator(".jp-OutputArea-output[data-mime-type*=stderr]").count() == 0


def test_ten_blind_votes_are_kept(opened: Lab, run: Run):
    lab, page = opened, opened.page
    lab.blind.get_by_role("button", name="Start").press("Enter")
    cast = [1, 2, 0, 1, 1, 2, 1, 0, 1, 2]
    for number, choice in enumerate(cast, 1):
        expect(lab.blind.get_by_text("Which is better?")).to_be_visible(timeout=WAIT)
        if number == 1:
            screenshot(page, "blind")
            pictures = lab.blind.get_by_role("img")
            assert page.evaluate(NAMELESS) == [] and pictures.count() == 2
            assert "guided" not in lab.blind.inner_text() and "tuned" not in lab.blind.inner_html()
        page.keyboard.press(str(choice))
        expect(lab.blind.get_by_text(f"{number} of 10 votes")).to_be_visible(timeout=WAIT)
    expect(lab.blind.get_by_text("All 10 votes of this run")).to_be_visible(timeout=WAIT)
    votes = read_jsonl(run.folder / "votes.jsonl")
    assert [vote["choice"] for vote in votes] == cast
    assert all(
        {vote["left"], vote["right"]} == {"guided", "tuned"} and vote["steps"] == 2
        for vote in votes
    )
    [told] = tally_votes(votes)
    expect(lab.blind.get_by_role("listitem")).to_have_text([str(told)])
    assert told.for_a + told.for_b == 8 and told.neither == 2
    screenshot(lab.blind, "blind-tally")

    lab.blind.get_by_role("button", name="Start").press("Enter")
    expect(lab.blind.get_by_text("Which is better?")).to_be_visible(timeout=WAIT)
    expect(lab.blind.get_by_role("button", name="Start")).to_have_attribute(
        "aria-disabled", "false", timeout=WAIT
    )
    lab.blind.get_by_role("button", name="Stop").press("Enter")
    expect(lab.blind.get_by_text("Stopped. All 10 votes of this run")).to_be_visible(timeout=WAIT)
    expect(lab.blind.get_by_role("img")).to_have_count(0)


def test_the_slider_of_a_comparison_takes_another_pair(opened: Lab):
    lab, page = opened, opened.page
    choices = page.locator(".jp-CodeCell", has=page.get_by_label("Pair", exact=True))
    sources = lambda: choices.locator("img").evaluate_all("all => all.map(img => img.src)")  # noqa: E731
    before = sources()
    choices.get_by_label("Pair", exact=True).select_option("guided | tuned")
    expect(choices.locator(".label.left")).to_have_text("guided")
    assert sources()[0] == before[0] and sources()[1] != before[1], (
        "tuned stays, the left picture changes"
    )
    choices.get_by_label("Prompt", exact=True).select_option("A boy is watching TV (seed 3)")
    expect(choices.get_by_role("img", name="guided: A boy is watching TV")).to_have_count(1)
    choices.locator("input[type=range]").press("Home")
    lab.asked_kernel("kernel: 50 1.0 A person in a red shirt holding a black cat on the left 0")


def test_no_cell_of_a_notebook_scrolls_sideways(chromium: Browser, lab: str):
    page = chromium.new_page(viewport={"width": 1400, "height": 1300})
    headers = {"Authorization": f"token {TOKEN}"}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        # see `notebook`
        session = {"path": path.name, "name": "", "type": "notebook", "kernel": {"name": "python3"}}
        assert page.request.post(f"{lab}/api/sessions", data=session, headers=headers).ok
        # in a workspace of its own, or the notebook before would be opened again as well
        page.goto(f"{lab}/lab/workspaces/{path.stem}/tree/{path.name}?token={TOKEN}")
        title = nbformat.read(path, 4).cells[0].source.splitlines()[0].removeprefix("# ")
        page.get_by_role("heading", name=title).first.wait_for(timeout=WAIT)
        page.locator(".jp-CodeCell .cm-scroller").first.wait_for(timeout=WAIT)
        screenshot(page, f"lab-{path.stem}")
        beyond = page.locator(".jp-CodeCell .cm-scroller").evaluate_all(
            "all => all.map(each => each.scrollWidth - each.clientWidth)"
        )
        assert max(beyond) <= 0, f"{path.name}: {beyond}"
    page.close()
