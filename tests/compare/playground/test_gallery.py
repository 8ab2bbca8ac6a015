"""The gallery: every picture in the run, read again, and readable elsewhere."""

import json
import re
import shutil
from io import BytesIO
from zipfile import ZipFile

import pytest
import torch
from PIL import Image

from nbs_lib.compare.playground.app import Playground
from nbs_lib.compare.playground.gallery.infotext import infotext
from nbs_lib.compare.playground.gallery.rows import cost_note
from nbs_lib.compare.sampling.sampler import Sampler
from nbs_lib.config import Play
from nbs_lib.files import read_jsonl
from nbs_lib.run.run import Run

# A1111's own expression, from modules/infotext_utils.py
PARAMETER = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
REQUEST = Play(prompts=["A person holding a cat", "A boy is watching TV"], seeds=[1], steps=2)


@pytest.fixture(scope="module")
def sampler(base, adapter):
    return Sampler(base, adapter)


@pytest.fixture(scope="module")
def drawn(adapter, sampler, tmp_path_factory):
    """A run whose playground has drawn two rows and was closed."""
    run = Run(tmp_path_factory.mktemp("my rüns") / "outputs" / "tiny")
    run.update(stages={"train": {"status": "done"}})
    shutil.copytree(adapter, run.adapter)
    Playground(sampler, run, REQUEST)
    return run


@pytest.fixture
def run(drawn, tmp_path):
    return Run(shutil.copytree(drawn.folder, tmp_path / "tiny"))


def read_infotext(text: str) -> dict[str, str]:
    """Return what A1111 takes from a PNG: prompt, negative prompt, and the last line's values."""
    *lines, last = text.split("\n")
    values = dict(PARAMETER.findall(last))
    assert len(values) >= 3, "with fewer it would be a part of the prompt"
    for key, value in values.items():
        if value.startswith('"'):
            values[key] = json.loads(value)
    prompts = {"Prompt": lines[0], "Negative prompt": ""}
    if len(lines) > 1:
        prompts["Negative prompt"] = lines[1].removeprefix("Negative prompt: ")
    return prompts | values


def pictures(run: Run) -> list[tuple[dict, Image.Image]]:
    """Return every line of the gallery with its picture."""
    lines = read_jsonl(run.folder / "gallery" / "gallery.jsonl")
    return [(line, Image.open(run.folder / "gallery" / line["file"])) for line in lines]


def test_each_picture_holds_its_line_and_a1111_s_parameters(run, base, sampler):
    side = sampler.sizes.trained
    found = pictures(run)
    names = [(line["prompt"], line["contender"]) for line, _ in found]
    assert len(names) == 4 and ("A boy is watching TV", "tuned") in names
    for line, picture in found:
        assert json.loads(picture.text["onepass"]) == line
        assert (line["seed"], line["steps"], line["base_hash"]) == (1, 2, base.hash)
        settings = read_infotext(picture.info["parameters"])
        assert settings["Prompt"] == line["prompt"] and settings["Sampler"] == "DDIM"
        assert (settings["Steps"], settings["Seed"], settings["Size"]) == (
            "2",
            "1",
            f"{side}x{side}",
        )
        assert settings["CFG scale"] == {"guided": "2.5", "tuned": "1"}[line["contender"]]


def test_commas_quotes_and_line_breaks_survive_a1111_s_form():
    metadata = {
        "prompt": "a cat,\nblue: ü",
        "negative": 'a dog, "red"',
        "steps": 4,
        "scheduler": "EulerDiscreteScheduler",
        "w": 3.5,
        "seed": 7,
        "base": 'base: "one", two',
        "contender": "guided at 3.5",
        "run": "tiny",
    }
    settings = read_infotext(infotext(metadata, 96, 64))
    assert settings["Prompt"] == "a cat, blue: ü"
    assert settings["Negative prompt"] == 'a dog, "red"'
    assert settings["Model"] == 'base: "one", two' and settings["Size"] == "96x64"
    assert settings["Sampler"] == "Euler" and settings["CFG scale"] == "3.5"
    assert read_infotext(infotext(metadata | {"w": 1.0}, 96, 64))["Negative prompt"] == ""


def test_a_second_kernel_finds_the_pictures_and_draws_none_again(run, sampler):
    before = {line["file"] for line, _ in pictures(run)}
    again = Playground(sampler, run, REQUEST)
    assert [row["prompt"] for row in again.gallery.rows] == REQUEST.prompts
    assert {line["file"] for line, _ in pictures(run)} == before, "none was drawn"
    assert again.viewer.before and again.viewer.alt == "A person holding a cat (seed 1)"
    assert "4 denoiser passes" in again.viewer.before_note
    assert again.panel.history == REQUEST.prompts
    # its settings are back too
    assert "- A boy is watching TV" in again.gallery.rows[0]["recipe"]
    latents = torch.zeros(sampler.base.latent_channels, 4, 4)
    assert again.colours.picture(None, latents) is not None, "previews are ready"
    other = Playground(sampler, run, Play(prompts=REQUEST.prompts, seeds=[1], steps=3))
    assert len(other.gallery.rows) == 4, "other settings are drawn"


def test_damaged_pictures_and_names_that_lead_elsewhere_are_left_out(run, sampler, tmp_path):
    gallery = run.folder / "gallery"
    path = gallery / "gallery.jsonl"
    lines = path.read_text("utf-8").splitlines()
    Image.new("RGB", (64, 64)).save(tmp_path / "outside.png")
    hostile = json.loads(lines[0]) | {"file": "../../outside.png", "time": "now"}
    unreadable = json.loads(lines[0]) | {"nfe": "many", "time": "later"}
    added = [json.dumps(hostile), json.dumps(unreadable), '{"file": 3}', "no JSON"]
    path.write_text("\n".join([*lines, *added]) + "\n", "utf-8")
    first = json.loads(lines[0])
    (gallery / first["file"]).write_bytes(b"no PNG")
    rows = Playground(sampler, run, REQUEST).gallery.by_number.values()
    read = [row for row in rows if row.time in (first["time"], "now", "later")]
    assert [row.prompt for row in read] == ["A person holding a cat"], "the whole one"


def test_a_removed_row_leaves_the_page_and_the_folder(run, sampler):
    play = Playground(sampler, run, REQUEST)
    [first, second] = play.gallery.rows
    play.gallery.remove(first["number"])
    assert play.gallery.rows == [second]
    assert {line["prompt"] for line, _ in pictures(run)} == {second["prompt"]}
    assert len(list((run.folder / "gallery").glob("*.png"))) == 2


def test_a_folder_that_cannot_be_written_is_named_beside_the_row(run, sampler, tmp_path):
    play = Playground(sampler, run, REQUEST)
    shutil.rmtree(run.folder / "gallery")
    (run.folder / "gallery").symlink_to(tmp_path)
    play.draw(play.thread.run_here)
    number = play.gallery.rows[0]["number"]
    assert "is a link to" in play.gallery.messages[str(number)]
    assert play.viewer.before, "the pictures are shown all the same"


def test_one_picture_or_all_of_them_are_downloaded_with_their_settings(run, sampler):
    play = Playground(sampler, run, REQUEST)
    sent = []
    play.gallery.send = lambda content, buffers: sent.append((content, buffers[0]))
    play.gallery.download("a", play.gallery.rows[0]["number"], "tuned")
    play.gallery.download("b")
    [(one, picture), (zipped, archive)] = sent
    files = {line["file"] for line, _ in pictures(run)}
    assert one["token"] == "a" and one["file"] in files
    assert "parameters" in Image.open(BytesIO(picture)).info
    assert zipped == {"token": "b", "file": "tiny-gallery.zip"}
    with ZipFile(BytesIO(archive)) as opened:
        assert set(opened.namelist()) == files
        content = opened.read(one["file"])
    assert content == picture == (run.folder / "gallery" / one["file"]).read_bytes()


@pytest.mark.parametrize(
    ("nfe", "words"),
    [(1, "1 denoiser pass,"), (2, "2 denoiser passes,"), (37.5, "37.5 denoiser passes,")],
)
def test_one_pass_is_one(nfe, words):
    assert cost_note(nfe, 0.5).startswith(words)
