"""The playground in a real JupyterLab: what a person types, clicks and moves."""

import shutil
from collections.abc import Iterator
from io import BytesIO
from zipfile import ZipFile

import nbformat
import pytest
from lab import TOKEN, WAIT, Lab, jupyterlab, opened_playground, write_playground
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from shots import screenshot

from nbs_lib.compare.playground.votes import tally_votes
from nbs_lib.files import ROOT, read_jsonl
from nbs_lib.pipeline.recipes import configs
from nbs_lib.run.run import Run

pytestmark = pytest.mark.browser
# more cells: the slider of 3_compare, and the state in the kernel
CHOICES = "from nbs_lib.compare.playground.viewer import slider\nchoices = slider(run)\nchoices"
STATE = (
    "print('kernel:', play.viewer.position, play.panel.scales['tuned'], play.panel.prompts, "
    "choices.children[2].position)"
)


@pytest.fixture(scope="module")
def run(compared: Run, add_run_on_another_base, tmp_path_factory) -> Run:
    """A run to write into; beside it one more, one that still trains, and one on another base."""
    outputs = tmp_path_factory.mktemp("my rüns") / "outputs"
    shutil.copytree(compared.folder, outputs / "tiny", symlinks=True)
    shutil.copytree(compared.folder, outputs / "second", symlinks=True)
    Run(outputs / "training").update(stages={"train": {"status": "running"}})
    add_run_on_another_base(outputs)
    return Run(outputs / "tiny")


@pytest.fixture(scope="module")
def lab(run: Run, one_thread, tmp_path_factory) -> Iterator[str]:
    """Yield the address of a JupyterLab with a quick playground on the run."""
    home = tmp_path_factory.mktemp("my läb")
    shutil.copytree(ROOT / "notebooks", home / "notebooks")
    write_playground(home / "notebooks", run, (CHOICES, STATE), steps=2)
    with jupyterlab(home) as address:
        yield address


@pytest.fixture
def notebook(chromium: Browser, lab: str, run: Run) -> Iterator[Page]:
    # of an earlier test, which the page would show again
    shutil.rmtree(run.folder / "gallery", ignore_errors=True)
    with opened_playground(chromium, lab) as page:
        yield page


def ask_kernel(lab: Lab, answer: str):
    """Run the last cell again; what it says is this."""
    cell = lab.page.locator(".jp-CodeCell", has_text="print('kernel:'")
    cell.locator(".cm-content").click()
    lab.page.keyboard.press("Control+Enter")
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
        expect(lab.number("λ of tuned")).to_have_value(value)
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
    ask_kernel(lab, "kernel: 53 1.05 A blue house 50")
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
    lines = read_jsonl(run.folder / "gallery" / "gallery.jsonl")
    assert [line["contender"] for line in lines[-2:]] == ["guided", "tuned at 1.05"]
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
    ask_kernel(lab, f"kernel: 50 1.05 {' '.join(f'A house, number {i}' for i in range(60))} 50")
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


def test_an_adapter_of_another_run_is_added_from_the_list(opened: Lab, base):
    lab, page = opened, opened.page
    adapters = lab.panel.get_by_label("Adapters of other runs")
    texts = adapters.locator("option").all_text_contents()
    assert texts[:2] == ["Add an adapter…", "No adapter: the base alone"]
    assert "training: its training has not ended" in texts
    theirs = f"another base, another-base (01234567); this page's is embedded ({base.hash:.8})"
    assert any(text.startswith("elsewhere: ") and theirs in text for text in texts)
    expect(adapters.locator("option:disabled")).to_have_count(2)
    second = lab.panel.get_by_role("checkbox", name="second")
    expect(second).to_have_count(0)
    adapters.select_option(label="second")
    expect(second).to_be_checked()
    lab.number("λ of second").fill("0.5")
    lab.draw.click()
    expect(lab.rows).to_have_count(2, timeout=WAIT)
    expect(lab.rows.first.get_by_role("img")).to_have_count(3)
    expect(lab.rows.first.get_by_text("second at 0.5")).to_be_visible()
    screenshot(page, "adapters")
    adapters.select_option("none")
    expect(second).not_to_be_checked()
    lab.draw.click()
    expect(lab.rows).to_have_count(3, timeout=WAIT)
    expect(lab.rows.first.get_by_role("img")).to_have_count(1)
    expect(lab.rows.first.get_by_role("img", name="guided: A person in a red")).to_be_visible()


def test_the_gallery_is_there_again_after_a_restart_and_can_be_downloaded(opened: Lab, run: Run):
    lab, page = opened, opened.page
    lab.prompts.fill("an astronaut riding a horse")
    expect(lab.panel.get_by_role("status")).to_contain_text(
        "This base never learned: astronaut, riding, horse."
    )
    lab.panel.get_by_label("Width").fill("96")
    expect(lab.panel.get_by_role("status")).to_contain_text("at 96 × 128 pictures are often worse")
    lab.draw.click()
    expect(lab.rows).to_have_count(2, timeout=WAIT)
    screenshot(page, "hints")
    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.get_by_role("menuitem", name="Restart Kernel and Run All Cells…").click()
    page.locator(".jp-Dialog-button.jp-mod-accept").click()
    # the outputs of before are gone once the new kernel runs
    expect(lab.rows).to_have_count(0, timeout=WAIT)
    expect(lab.rows).to_have_count(2, timeout=WAIT)
    expect(lab.rows.first.get_by_role("img")).to_have_count(2)
    assert len(read_jsonl(run.folder / "gallery" / "gallery.jsonl")) == 4, "none was drawn again"

    with page.expect_download() as one:
        lab.rows.first.get_by_role("button", name="Download tuned: an astronaut").click()
    with Image.open(one.value.path()) as picture:
        assert picture.size == (96, 128)
        assert picture.info["parameters"].startswith("an astronaut riding a horse\nSteps: 2, ")
    with page.expect_download() as every:
        lab.gallery.get_by_role("button", name="Download all as a zip").click()
    assert every.value.suggested_filename == "tiny-gallery.zip"
    with ZipFile(BytesIO(every.value.path().read_bytes())) as archive:
        assert len(archive.namelist()) == 4
    remove = lab.rows.first.get_by_role("button", name="Remove: an astronaut")
    remove.click()
    expect(remove).to_have_text("Remove its files, really?")
    expect(lab.rows).to_have_count(2)
    remove.click()
    expect(lab.rows).to_have_count(1)
    assert len(list((run.folder / "gallery").glob("*.png"))) == 2


def test_what_cannot_be_drawn_is_said_beside_the_button(opened: Lab):
    lab, page = opened, opened.page
    lab.prompts.fill("  ")
    lab.draw.click()
    lab.says("The prompt is empty")
    expect(lab.viewer.get_by_role("img", name="tuned: A person in a red shirt")).to_be_visible()
    screenshot(page, "empty-prompt")
    lab.prompts.fill("a cat")
    lab.number("w of guided").fill("50")
    lab.draw.click()
    lab.says("w of guided: given 50; allowed is a number from 1 to 20")
    lab.number("w of guided").fill("3")
    lab.number("λ of tuned").fill("7")
    lab.draw.click()
    lab.says("λ of tuned: given 7; allowed is a number from -1 to 3")
    lab.number("λ of tuned").fill("")
    lab.draw.click()
    lab.says("λ of tuned is empty")
    lab.number("λ of tuned").fill("1")
    lab.panel.get_by_label("Steps", exact=True).fill("")
    lab.draw.click()
    lab.says("steps is empty")
    lab.panel.get_by_label("Steps", exact=True).fill("2")
    lab.panel.get_by_label("Other contenders, one a line").fill("best")
    lab.prompts.fill("cat " * 1000)
    lab.draw.click()
    expect(lab.panel.get_by_role("status")).to_contain_text(
        "The text encoder reads 40 tokens, and the prompt has 1002", timeout=WAIT
    )
    expect(lab.viewer.locator(".words.right")).to_contain_text(
        "contender: given 'best'; allowed is"
    )
    lab.says("best: contender: given 'best'; allowed is")
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
    ask_kernel(lab, "kernel: 50 1.0 A person in a red shirt holding a black cat on the left 0")


def test_no_cell_of_a_notebook_scrolls_sideways(chromium: Browser, lab: str):
    page = chromium.new_page(viewport={"width": 1400, "height": 1300})
    headers = {"Authorization": f"token {TOKEN}"}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        # see `opened_playground`
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
