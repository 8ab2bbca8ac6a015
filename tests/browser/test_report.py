"""report.html as its reader has it: a file opened from disk, with no network."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Browser, Page
from shots import SHOTS, screenshot

from nbs_lib.run.run import Run

pytestmark = pytest.mark.browser
FIRST, SECOND = ".card:nth-of-type(1)", ".card:nth-of-type(2)"


@dataclass
class Opened:
    """A page, and what it asked for and complained of since it was opened."""

    page: Page
    asked: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


@pytest.fixture
def open_report(chromium: Browser, compared: Run) -> Iterator:
    contexts = []

    def call(width: int = 1400, **options) -> Opened:
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, offline=True, **options
        )
        contexts.append(context)
        opened = Opened(context.new_page())
        opened.page.on("request", lambda request: opened.asked.append(request.url))
        opened.page.on(
            "requestfailed", lambda request: opened.wrong.append(f"request {request.url[:200]}")
        )
        opened.page.on("pageerror", lambda error: opened.wrong.append(f"error {error}"))
        opened.page.on(
            "console", lambda message: opened.wrong.append(f"{message.type} {message.text}")
        )
        opened.page.goto(compared.report.as_uri())
        return opened

    yield call
    for context in contexts:
        context.close()


def visible_part(page: Page, card: str) -> tuple[float, str]:
    """Return the visible share of the left picture in percent, and the browser's clip path."""
    clip = page.locator(f"{card} img.before").evaluate("img => getComputedStyle(img).clipPath")
    return float(page.locator(f"{card} input[type=range]").input_value()), clip


def shown(page: Page, card: str) -> list[str]:
    """Return the contenders on the left and right of a slider, identified by their pictures."""
    return page.locator(card).evaluate(
        """card => ["before", "after"].map(side => {
            const shown = card.querySelector("img." + side).src;
            const figures = [...card.querySelectorAll("[data-contender]")];
            return figures.find(figure => figure.querySelector("img").src === shown)
                .dataset.contender;
        })"""
    )


def sideways(page: Page) -> int:
    return page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )


def test_it_asks_for_nothing_and_nothing_goes_wrong(open_report, compared):
    opened = open_report()
    page = opened.page
    page.locator("summary").evaluate_all("all => all.forEach(summary => summary.click())")
    page.wait_for_function(
        "[...document.images].every(img => img.complete && (img.naturalWidth || !img.src))"
    )
    assert opened.asked[0] == compared.report.as_uri() and opened.wrong == []
    assert all(url.startswith("data:") for url in opened.asked[1:])
    assert page.evaluate("window.name") == "", "the hostile prompt was run"


def test_the_edge_moves_by_keyboard_and_the_picture_s_clip_with_it(open_report):
    page = open_report().page
    assert visible_part(page, FIRST) == (50, "inset(0px 50% 0px 0px)")
    page.locator(f"{FIRST} input[type=range]").focus()
    for key, part in (
        ("ArrowRight", 51),
        ("ArrowLeft", 50),
        ("ArrowLeft", 49),
        ("Home", 0),
        ("End", 100),
    ):
        page.keyboard.press(key)
        assert visible_part(page, FIRST) == (part, f"inset(0px {100 - part}% 0px 0px)"), key
    assert (
        page.locator(f"{FIRST} input[type=range]").get_attribute("aria-valuetext")
        == "100 % unguided, 0 % tuned"
    )
    assert visible_part(page, SECOND) == (50, "inset(0px 50% 0px 0px)"), (
        "the cards move by themselves"
    )


def test_the_edge_follows_the_pointer(open_report):
    page = open_report().page
    box = page.locator(f"{SECOND} .onepass-slider")
    box.scroll_into_view_if_needed()
    place = box.bounding_box()
    page.mouse.click(place["x"] + place["width"] * 0.8, place["y"] + place["height"] / 2)
    part, clip = visible_part(page, SECOND)
    assert 78 <= part <= 82 and clip == f"inset(0px {100 - part:g}% 0px 0px)"


def test_the_pair_choice_changes_the_pictures_of_its_card_alone(open_report):
    page = open_report().page
    assert shown(page, FIRST) == shown(page, SECOND) == ["unguided", "tuned"]
    page.locator(f"{FIRST} input[type=radio]").first.focus()
    page.keyboard.press("ArrowRight")
    assert shown(page, FIRST) == ["guided", "tuned"] and shown(page, SECOND) == [
        "unguided",
        "tuned",
    ]
    assert page.locator(f"{FIRST} .onepass-slider .label").all_inner_texts() == ["Guided", "Tuned"]
    page.locator(f"{FIRST} label").first.click()
    assert shown(page, FIRST) == ["unguided", "tuned"]


def test_every_picture_is_described_and_seen(open_report):
    page = open_report().page
    pictures = page.locator("img").evaluate_all(
        "all => all.map(img => [img.alt, img.naturalWidth, img.clientWidth])"
    )
    assert (
        len(pictures) == 6 + 4 + 5
    )  # the cards', the sliders', the grid, rates, frontier, differences and steps
    assert all(alt.strip() and natural and wide for alt, natural, wide in pictures), pictures


@pytest.mark.parametrize("width", [390, 1400])
def test_no_width_scrolls_sideways(open_report, width):
    for scheme in ("light", "dark"):
        page = open_report(width, color_scheme=scheme).page
        screenshot(page, f"report-{width}-{scheme}", full_page=True)
        page.locator("summary").evaluate_all("all => all.forEach(summary => summary.click())")
        assert sideways(page) == 0


def test_a_table_that_is_too_wide_scrolls_beside_its_names(open_report):
    page = open_report(900).page
    table = page.get_by_role("region", name="Fidelity to guided")
    name, last = (
        table.get_by_role("rowheader").last,
        table.get_by_role("columnheader", name="Latent MSE to guided"),
    )
    assert name.bounding_box()["width"] >= 180
    table.evaluate("each => each.scrollLeft = each.scrollWidth")
    screenshot(table, "report-900-table")
    inside, left, right = (each.bounding_box() for each in (table, name, last))
    assert (
        left["x"] - inside["x"] <= 1
        and right["x"] + right["width"] <= inside["x"] + inside["width"]
    )


def test_on_paper_nothing_is_cut_off(open_report):
    page = open_report(794).page  # A4 at 96 pixels an inch
    page.emulate_media(media="print")
    assert sideways(page) == 0 and page.locator(".three img").first.is_visible()
    paper = page.pdf(path=SHOTS / "report.pdf", format="A4")
    assert (
        paper.startswith(b"%PDF")
        and paper.count(b"/Type /Page\n") + paper.count(b"/Type /Page ") >= 2
    )


def test_dark_is_dark_and_its_text_stands_out(open_report):
    for scheme in ("light", "dark"):
        opened = open_report(390, color_scheme=scheme)
        opened.page.locator("summary").evaluate_all(
            "all => all.forEach(summary => summary.click())"
        )
        dull = opened.page.evaluate(CONTRASTS)
        assert dull == [] and sideways(opened.page) == 0, scheme
        ground = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (max(map(int, ground[4:-1].split(","))) < 60) == (scheme == "dark")
        assert opened.wrong == []


def test_without_scripts_every_picture_is_there(open_report):
    page = open_report(java_script_enabled=False).page
    assert (
        page.locator(".three img").count() == 6 and page.locator("input[type=range]").count() == 0
    )


CONTRASTS = """() => {
  // texts whose contrast to the ground below them is under 4.5 : 1; WCAG 2.2, 1.4.3
  const light = (colour) => {
    const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = colour.match(/[\\d.]+/g).map(v => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const clear = (colour) => colour === "transparent" || /, 0\\)$/.test(colour);
  const found = [];
  const texts = "p, h1, h2, h3, dt, dd, th, td, small, code, figcaption, figcaption span, "
    + "summary, label, footer";
  const ground = (element) => getComputedStyle(element).backgroundColor;
  for (const of of document.querySelectorAll(texts)) {
    if (!of.offsetParent || !of.textContent.trim()) continue;
    let under = of;
    while (under.parentElement && clear(ground(under))) under = under.parentElement;
    const lights = [light(getComputedStyle(of).color), light(ground(under))];
    const [a, b] = lights.sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5)
      found.push(`${of.tagName} ${of.textContent.trim().slice(0, 40)}`);
  }
  return found;
}"""
