"""Captions drafted by a BLIP and a GIT of random weights, and edited."""

import json
import sqlite3
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessorPil,
    CLIPImageProcessorPil,
    CLIPTokenizer,
    GitConfig,
    GitForCausalLM,
)

from nbs_lib.files import read_jsonl
from nbs_lib.models import EMBEDDED
from nbs_lib.prepare import prepare
from nbs_lib.prepare.captioning import caption_editor
from nbs_lib.prepare.captioning.captioner import Captioner, find_captioner
from nbs_lib.prepare.captioning.editor import save_captions
from nbs_lib.prepare.captions import clean_caption
from nbs_lib.prepare.examples import InFile, SourceError
from nbs_lib.run.run import Run
from tests.conftest import vocabulary

pytestmark = pytest.mark.slow

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
WORDS = vocabulary()


def write_captioner(kind: str, folder: Path) -> Path:
    """Write a captioner of random weights, as its hub has it."""
    vision = SMALL | {"intermediate_size": 32, "image_size": 32, "patch_size": 16}
    text = SMALL | WORDS | {"intermediate_size": 32, "max_position_embeddings": 64}
    size = {"height": 32, "width": 32}
    with torch.random.fork_rng():
        torch.manual_seed(1)
        if kind == "blip":
            text |= {"encoder_hidden_size": 16, "sep_token_id": WORDS["eos_token_id"]}
            model = BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=vision))
            processor = BlipImageProcessorPil(size=size)
        else:
            model = GitForCausalLM(GitConfig(vision_config=vision, **text))
            processor = CLIPImageProcessorPil(size=size, crop_size=size)
    for weights in model.parameters():
        # larger ones than a new model's, so that each picture has a caption of its own
        weights.data.mul_(1 if weights.ndim < 2 else 12)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    CLIPTokenizer.from_pretrained(EMBEDDED / "tokenizer").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def blip(tmp_path_factory) -> Path:
    return write_captioner("blip", tmp_path_factory.mktemp("models") / "tiny blip")


@pytest.fixture
def bare(folder) -> Path:
    """Three pictures: a plain one with a caption, one of noise, and a copy of that."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 80, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "b.png")
    (folder / "c.png").write_bytes((folder / "b.png").read_bytes())
    for name in "bc":
        (folder / f"{name}.txt").unlink()
    return folder


def kept(config) -> dict[str, str]:
    cache = prepare(config).cache
    return dict(zip(cache.ids, cache.captions, strict=True))


def stock_caption(folder: Path, path: Path) -> str:
    """Return the caption of transformers' own classes."""
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    classes = {
        "blip": (BlipForConditionalGeneration, BlipImageProcessorPil),
        "git": (GitForCausalLM, CLIPImageProcessorPil),
    }
    model_class, processor_class = classes[kind]
    model = model_class.from_pretrained(folder, attn_implementation="eager").eval()
    processor = processor_class.from_pretrained(folder)
    pixels = processor(Image.open(path), return_tensors="pt").pixel_values
    ids = model.generate(pixel_values=pixels, max_new_tokens=40, num_beams=3, do_sample=False)
    return CLIPTokenizer.from_pretrained(folder).decode(ids[0], skip_special_tokens=True)


@pytest.mark.parametrize("kind", ["blip", "git"])
def test_a_draft_is_what_the_stock_model_says(kind, bare, tmp_path):
    folder = write_captioner(kind, tmp_path / "captioner")
    captioner = Captioner(find_captioner(str(folder)), torch.device("cpu"))
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    paths = [bare / "a.png", broken, bare / "b.png"]
    drafts = captioner.draft([InFile(path) for path in paths])
    assert drafts[0] and drafts[0] == stock_caption(folder, paths[0])
    assert drafts[1] == "" and drafts[2] == stock_caption(folder, paths[2])
    # this BLIP's random weights hardly look at the picture
    assert kind == "blip" or drafts[0] != drafts[2]


def test_images_without_caption_get_a_draft_once_and_others_keep_theirs(bare, config, blip):
    plain = config(max_examples=0, drop_duplicates=False)
    assert kept(plain) == {"a.png": "a plain picture, a"}
    options = {"max_examples": 0, "drop_duplicates": False, "captioner": str(blip)}
    captions = kept(config(**options, template="photo, {}"))
    draft = clean_caption(stock_caption(blip, bare / "b.png"))
    assert captions == {
        "a.png": "photo, a plain picture, a",
        "b.png": f"photo, {draft}",
        "c.png": f"photo, {draft}",
    }
    index = Run(plain.run).cache_store / "index.sqlite"
    with sqlite3.connect(index) as connection:
        [(digest, text)] = connection.execute("SELECT digest, caption FROM drafts").fetchall()
        assert digest == sha256((bare / "b.png").read_bytes()).digest() and text == draft
        # what is known is used, and not asked of the model again
        connection.execute("UPDATE drafts SET caption = 'known'")
    assert kept(config(**options, resolution=32))["b.png"] == "known"
    # another model is asked again
    (blip / "notes.txt").write_text("of another release")
    assert kept(config(**options, resolution=32))["b.png"] == draft


def test_drafts_are_edited_beside_their_pictures_and_saved(bare, config, blip):
    options = {"max_examples": 0, "drop_duplicates": False, "captioner": str(blip)}
    before = kept(config(**options))
    mine = '{"file_name": "./c.png", "text": "mine", "artist": "me"}\n'
    (bare / "metadata.jsonl").write_text(f"{mine}no JSON\n")
    editor = caption_editor(config(**options))
    *rows, foot = editor.children
    areas = {row.children[1].tooltip: row.children[1] for row in rows}
    assert {name: area.value for name, area in areas.items()} == {
        "caption of a.png": "a plain picture, a",
        "caption of b.png": before["b.png"],
        "caption of c.png": "mine",
    }
    assert all("data:image/png;base64," in row.children[0].value for row in rows)
    areas["caption of b.png"].value = " a red\nteapot "
    areas["caption of a.png"].value = ""
    foot.children[0].click()
    assert "Saved to" in foot.children[1].value and "replace = True" in foot.children[1].value
    # lines of others stay as they are, and a text file's caption stays there
    drafted = '{"file_name": "b.png", "text": "a red teapot"}\n'
    assert (bare / "metadata.jsonl").read_text() == f"{mine}no JSON\n{drafted}"
    after = {"a.png": "a plain picture, a", "b.png": "a red teapot", "c.png": "mine"}
    assert kept(config(**options)) == after
    save_captions(bare, {"b.png": "another", "c.png": "ours"})
    assert read_jsonl(bare / "metadata.jsonl") == [
        {"file_name": "./c.png", "text": "ours", "artist": "me"},
        {"file_name": "b.png", "text": "another"},
    ]


def test_a_table_that_cannot_be_read_is_left_as_it_is(bare, config, blip):
    (bare / "metadata.jsonl").write_bytes(b"\xff\xfe no text")
    editor = caption_editor(config(captioner=str(blip)))
    *rows, foot = editor.children
    rows[0].children[1].value = "a red teapot"
    foot.children[0].click()
    assert foot.children[1].value.startswith("<p role=alert>Not saved: ")
    assert (bare / "metadata.jsonl").read_bytes() == b"\xff\xfe no text"


def test_a_caption_with_a_line_separator_stays_one_line(tmp_path):
    line = '{"file_name": "a.png", "text": "one\u2028two"}\n'
    (tmp_path / "metadata.jsonl").write_text(line, "utf-8")
    save_captions(tmp_path, {"b.png": "three"})
    assert [row["file_name"] for row in read_jsonl(tmp_path / "metadata.jsonl")] == [
        "a.png",
        "b.png",
    ]


def test_without_a_captioner_there_is_no_editor(config):
    assert caption_editor(config()).data == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "nothing", "auto_map": {"AutoModel": "theirs.Model"}}, "does not load"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "quantized weights"),
        ({"model_type": "clip"}, "does not load"),
    ],
)
def test_settings_that_do_not_fit_or_ask_for_code_are_refused(tmp_path, change, message):
    folder = write_captioner("blip", tmp_path / "captioner")
    (folder / "theirs.py").write_text("raise SystemExit('executed')")
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | change))
    with pytest.raises(SourceError, match=message):
        Captioner(find_captioner(str(folder)), torch.device("cpu"))


def test_a_captioner_that_cannot_be_used_is_refused_before_a_picture_is_read(config, tmp_path):
    with pytest.raises(SourceError, match="captioner 'nowhere': there is no such folder; give the"):
        prepare(config(captioner="nowhere"))
    folder = tmp_path / "pickled"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "blip"}')
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(SourceError, match="no weights as safetensors, and pickled ones are not"):
        prepare(config(captioner=str(folder)))
    assert not (Run(config().run).folder / "cache").exists()
