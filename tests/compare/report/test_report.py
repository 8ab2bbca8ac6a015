import json
import os
import re
import shutil
import subprocess
import sys
from base64 import b64decode, b64encode
from hashlib import sha256
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from nbs_lib.compare.report.html import number, percent, value, write_report
from nbs_lib.compare.report.snippet import card_usage, usage_example
from nbs_lib.compare.report.summary import TITLES, numbers_table
from nbs_lib.files import ROOT
from nbs_lib.models.sampling_recipe import usage_code
from nbs_lib.run.run import Run

pytestmark = pytest.mark.slow

VOID = {"meta", "link", "img", "input"}
FETCHING = {"src", "href", "srcset", "poster", "data", "action", "formaction", "background"}


class Page(HTMLParser):
    """A page's elements as (tag, attributes, text of it and its descendants), in their order."""

    def __init__(self, html: str):
        super().__init__()
        self.elements, self.open = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        element = [tag, dict(attrs), ""]
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        while self.open.pop()[0] != tag:
            pass

    def handle_data(self, data):
        for element in self.open:
            element[2] += data

    def texts(self, tag: str) -> list[str]:
        return [text for name, _, text in self.elements if name == tag]


@pytest.fixture(scope="module")
def page(compared) -> Page:
    return Page(compared.report.read_text())


@pytest.fixture(scope="module")
def results(compared) -> dict:
    return json.loads((compared.compare / "results.json").read_text())


@pytest.fixture
def copied(compared, run_folder) -> Run:
    """The compared run again, to be changed."""
    shutil.copytree(compared.folder, run_folder, symlinks=True)
    return Run(run_folder)


def test_the_page_links_to_nothing_outside_itself(page):
    named = [
        url
        for _, attributes, _ in page.elements
        for key, url in attributes.items()
        if key in FETCHING
    ]
    assert len(named) > 6 and all(url.startswith("data:") for url in named)
    for css in page.texts("style"):
        assert "@import" not in css
        assert all(url.strip("'\"").startswith("data:") for url in re.findall(r"url\(([^)]*)", css))
    assert not any(
        re.search(r"https?:|//\w|\bfetch\b|\bimport\b|XMLHttp|WebSocket", js)
        for js in page.texts("script")
    )


def test_the_policy_admits_this_style_and_script_and_no_other(page):
    [policy] = [
        a["content"]
        for tag, a, _ in page.elements
        if a.get("http-equiv") == "Content-Security-Policy"
    ]
    rules = dict(rule.split(maxsplit=1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'" and rules["img-src"] == "data:"
    for kind in ("style", "script"):
        [text] = page.texts(kind)
        assert (
            rules[f"{kind}-src"] == f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
        )
    # the policy would refuse these, and what they do would be missing
    assert not any(
        key == "style" or key.startswith("on")
        for _, attributes, _ in page.elements
        for key in attributes
    )


def test_its_pictures_are_those_of_the_run(page, results, compared):
    urls = {a["alt"]: a["src"] for tag, a, _ in page.elements if tag == "img" and a.get("src")}
    for picture in results["pictures"]:
        for name, file in picture["files"].items():
            url = urls[f"{name.capitalize()}: {picture['prompt']}, seed {picture['seed']}"]
            assert b64decode(url.partition(",")[2]) == (compared.compare / file).read_bytes()
    assert len(urls) == 6 + 5  # the grid, the rates, the frontier, the differences, the steps


def test_a_hostile_prompt_is_text(page, results):
    hostile, other = (picture["prompt"] for picture in results["pictures"])
    assert "<script>" in hostile and page.texts("h3") == [hostile, other]
    assert len(page.texts("script")) == 1 and page.texts("title") == ["tiny: guidance in one pass"]
    assert hostile in page.texts("dd"), "a parameter of a stage"
    assert repr(hostile) in page.texts("pre")[1]


def numbers_in(text: str) -> list[float]:
    return [float(match.replace(",", "")) for match in re.findall(r"-?\d[\d,]*(?:\.\d+)?", text)]


def test_the_numbers_are_those_of_results_json(page, results):
    cells = page.texts("td")
    for row, name in enumerate(("unguided", "guided", "tuned")):
        costs = results["contenders"][name]
        first, nfe, seconds, memory = cells[4 * row : 4 * row + 4]
        score, fid, kid = cells[12 + 3 * row : 15 + 3 * row]
        distance, seen, nearer, similarity, error = cells[21 + 5 * row : 26 + 5 * row]
        heads = page.texts("th")
        assert all(heads[start + row].startswith(name.capitalize()) for start in (5, 12, 21))
        rates = [100 * costs["caption_first"][key] for key in ("rate", "low", "high")]
        assert numbers_in(first) == pytest.approx(rates, abs=0.51)
        for cell, kind, times in ((score, "clip_score", 1), (fid, "fid", 1), (kid, "kid", 1000)):
            ends = [costs[kind]["value"], costs[kind]["low"], costs[kind]["high"]]
            assert numbers_in(cell) == pytest.approx([times * x for x in ends], rel=6e-3)
        near = costs["fidelity"] or {}
        for cell, kind in (
            (distance, "distance_ratio"),
            (seen, "feature_distance_ratio"),
            (similarity, "ssim"),
            (error, "latent_mse"),
        ):
            value = near.get(kind)
            expected = [value["value"], value["low"], value["high"]] if value else []
            # unguided's own ratio is 1, without an interval
            expected = sorted(set(expected), key=expected.index)
            assert numbers_in(cell) == pytest.approx(expected, rel=6e-3)
        share = near.get("nearer")
        expected = [100 * share[key] for key in ("rate", "low", "high")] if share else []
        assert numbers_in(nearer) == pytest.approx(expected, abs=0.51)
        assert numbers_in(nfe) == [costs["nfe"]]
        expected = [costs["seconds"], costs["seconds_low"], costs["seconds_high"]]
        assert numbers_in(seconds) == pytest.approx(expected, rel=6e-3)
        assert (
            numbers_in(memory) == pytest.approx([costs["memory_mib"]], abs=1)
            and costs["memory_kind"] in memory
        )
    figures = " ".join(page.texts("dl")[0].split())
    assert numbers_in(figures.partition("Time, tuned to guided")[2])[0] == pytest.approx(
        results["time_ratio"], rel=0.05
    )
    near = results["contenders"]["tuned"]["fidelity"]
    headline = numbers_in(figures.partition("Distance to guided")[2])
    ratio = [near["distance_ratio"][key] for key in ("value", "low", "high")]
    # 95: of the interval
    assert headline[:1] + headline[2:4] == pytest.approx(ratio, rel=6e-3) and headline[1] == 95
    assert headline[4:6] == [pytest.approx(100 * near["nearer"]["rate"], abs=0.51), near["count"]]
    assert any("10 pictures of held-out captions" in text for text in page.texts("p"))
    lead = page.texts("p")[1]
    assert "guidance scale 2.5 " in lead and "in 2 DDIM steps" in lead


def test_the_snippet_samples_the_tuned_picture(page, results, compared, tmp_path):
    _, code = page.texts("pre")
    os.symlink(
        ROOT / "nbs_lib", tmp_path / "nbs_lib"
    )  # it is for the project's folder, and leaves its picture there
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    lines = [line for line in re.split(r"[\r\n]+", process.stderr) if line and "%|" not in line]
    assert lines == [] == process.stdout.splitlines(), "nothing except bars"
    files = (tmp_path / "picture.png", compared.compare / results["pictures"][0]["files"]["tuned"])
    stock, tuned = (np.asarray(Image.open(path)).astype(int) for path in files)
    assert np.abs(stock - tuned).max() <= 1


def test_the_snippet_names_base_adapter_and_scale(results):
    code = usage_example(Run("outputs/demo"), results | {"adapter_scale": 0.5})
    assert (
        "'nbs_lib/picturebook/base'" in code
        and "'outputs/demo/adapter'" in code
        and '"onepass", 0.5)' in code
    )
    mirrored = results | {"base": "a/gone", "base_origin": "a/mirror@0123abc", "pictures": []}
    assert "'a/mirror'" in usage_example(Run("outputs/demo"), mirrored)


@pytest.mark.parametrize(
    ("changed", "title", "sentence", "coded"),
    [
        (
            {
                "objective": "consistency",
                "sampling": {"guidance_scale": 1.0, "scheduler": "LCMScheduler", "steps": 4},
            },
            "A few steps instead of many",
            "what was trained in 4 LCM steps",
            [
                "LCMScheduler.from_config",
                "num_inference_steps=4",
                "guidance_scale=1,  #",
                "load_lora_weights",
            ],
        ),
        (
            {
                "objective": "distribution",
                "sampling": {
                    "guidance_scale": 1.0,
                    "scheduler": "DDIMScheduler",
                    "timestep_spacing": "trailing",
                    "steps": 4,
                },
            },
            "A few steps instead of many",
            "what was trained in 4 DDIM steps",
            ['DDIMScheduler.from_config(pipe.scheduler.config, timestep_spacing="trailing")'],
        ),
        (
            {
                "objective": "finetune",
                "whole_model": True,
                "sampling": {"guidance_scale": 4.0, "scheduler": "DDIMScheduler", "steps": 25},
            },
            "Fine-tuned on its own images",
            "This model was trained on images of its own",
            ["/model', safety_checker", "guidance_scale=4,\n"],
        ),
    ],
)
def test_title_text_and_snippet_follow_the_objective(
    copied, results, changed, title, sentence, coded
):
    (copied.compare / "results.json").write_text(json.dumps(results | changed))
    page = Page(write_report(copied).read_text())
    assert page.texts("h1") == [title] and any(sentence in text for text in page.texts("p"))
    _, code = page.texts("pre")
    assert all(x in code for x in coded) and ("lora" in code) != changed.get("whole_model", False)
    compile(code, "usage", "exec")


def test_the_page_leaves_out_parts_without_files(copied, page):
    assert not {"Training"} & set(page.texts("h2"))
    Image.new("RGB", (8, 8)).save(copied.folder / "loss.png")
    results = json.loads((copied.compare / "results.json").read_text())
    results["guidance_recovered"] = {"value": 0.853, "low": 0.7, "high": 1.02}
    results["figures"]["rates"] = None
    for row in results["contenders"].values():
        row["caption_first"] = None
    (copied.compare / "results.json").write_text(json.dumps(results))
    other = Page(write_report(copied).read_text())
    assert "Training" in other.texts(
        "h2"
    ) and "Loss: 0.25 at first, 0.125 after 6 steps" in other.texts("figcaption")
    assert "85\u202f%" in other.texts(
        "dd"
    ) and "95 % interval 70\u202f% to 102\u202f%" in other.texts("dd")
    assert "Caption ranked first" in page.texts("th") and "Caption ranked first" not in other.texts(
        "th"
    )
    assert not [a for _, a, _ in other.elements if "Rates" in a.get("alt", "")]


def test_an_older_comparison_without_fidelity_has_its_page(copied, page):
    results = json.loads((copied.compare / "results.json").read_text())
    for name in ("measured_on", "features"):
        del results[name]
    for row in results["contenders"].values():
        del row["fidelity"]
    results["to_guided"] = {"tuned": {"latent_mse": 0.1, "ssim": 0.8, "psnr": 20, "intervals": {}}}
    (copied.compare / "results.json").write_text(json.dumps(results))
    other = Page(write_report(copied).read_text())
    assert not any("to guided" in text for text in other.texts("th"))
    assert any("to guided" in text for text in page.texts("th"))
    assert other.texts("td") == page.texts("td")[:21], "all else is there"


def test_without_a_comparison_it_says_what_to_do(run_folder):
    with pytest.raises(FileNotFoundError, match="no comparison; run notebooks/3_compare.ipynb"):
        write_report(Run(run_folder))
    assert not run_folder.exists()


def test_a_lost_picture_is_named_and_the_old_report_stays(copied):
    before = copied.report.read_bytes()
    next((copied.compare / "pictures").glob("*_tuned.png")).unlink()
    with pytest.raises(FileNotFoundError, match="_tuned.png"):
        write_report(copied)
    assert copied.report.read_bytes() == before and not list(copied.folder.glob(".*"))


@pytest.mark.parametrize(
    "x, digits, text",
    [
        (0.123456, 3, "0.123"),
        (12.3456, 3, "12.3"),
        (0.5, 2, "0.5"),
        (0, 3, "0"),
        (0.0001, 3, "0.0001"),
        (0.00001234, 3, "1.23e-05"),
        (1234.5, 4, "1234"),
        (12345.6, 3, "12,346"),
        (999.7, 3, "1,000"),
        (-2.5, 3, "-2.5"),
        (None, 3, "–"),
        (float("nan"), 3, "–"),
        (float("inf"), 3, "∞"),
        (float("-inf"), 3, "–"),
    ],
)
def test_a_number_has_its_significant_digits(x, digits, text):
    assert number(x, digits) == text


@pytest.mark.parametrize(
    "x, text",
    [
        (0.853, "85\u202f%"),
        (0, "0\u202f%"),
        (1.02, "102\u202f%"),
        (-0.001, "0\u202f%"),
        (-0.25, "−25\u202f%"),
        (None, "–"),
        (float("nan"), "–"),
    ],
)
def test_a_rate_is_in_percent(x, text):
    assert percent(x) == text


@pytest.mark.parametrize(
    "x, text",
    [
        (1.0, "1"),
        (0.0001, "0.0001"),
        (7, "7"),
        (False, "False"),
        ("outputs/demo", "outputs/demo"),
        ([0, 4], "0, 4"),
        (["A cat", "A dog, asleep"], "A cat\nA dog, asleep"),
        ([], "none"),
    ],
)
def test_parameters_are_written_as_a_reader_would(x, text):
    assert value(x) == text


def test_the_table_of_a_notebook_has_every_number_with_its_interval(results):
    html = numbers_table(SimpleNamespace(results=results)).replace("\xa0", " ")
    rate = results["contenders"]["tuned"]["caption_first"]
    ends = (rate["rate"], rate["low"], rate["high"])
    assert "{:.0%} [{:.0%}, {:.0%}]".format(*ends).replace("%", " %") in html
    score = results["contenders"]["guided"]["clip_score"]
    assert f"{score['value']:.1f} [{score['low']:.1f}, {score['high']:.1f}]" in html
    assert html.count("<th ") == 2 + len(TITLES) and "10 pictures of held-out captions" in html
    plain = {name: row | {"caption_first": None} for name, row in results["contenders"].items()}
    fewer = numbers_table(SimpleNamespace(results=results | {"contenders": plain}))
    assert fewer.count("<th ") == 1 + len(TITLES), "no column without a number"


def test_how_to_load_it_is_the_card_s_own_text(copied):
    assert "load_lora_weights" in card_usage(copied.folder), "another program's adapter has no card"
    code = usage_code({"base": "embedded"}, "adapter", False)
    front = "---\nlicense: mit\n---\n"
    card = f"{front}# tiny\n\nSample it so.\n\n{code}\n\n| | |\n|---|---|\n| base |"
    (copied.adapter / "README.md").write_text(card)
    text = card_usage(copied.folder)
    assert text.startswith(f"Sample it so.\n\n{code}\n\nHere, `BASE` is")
    assert "nbs_lib/picturebook/base" in text and "| base |" not in text and "license" not in text
