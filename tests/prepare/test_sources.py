"""Which examples a source yields, and what becomes of the others."""

import os
import sys

import pytest
from PIL import Image

from nbs_lib.config import Prepare
from nbs_lib.files import ROOT
from nbs_lib.prepare.sources import SourceError, from_folder, picturebook, select


def reasons(selection) -> dict[str, str]:
    return {each.id: each.reason for each in selection.skipped}


def ids(selection) -> list[str]:
    return [each.id for each in selection.examples]


def test_the_picture_book_comes_from_its_seed():
    first, again, other = (list(picturebook(8, seed)) for seed in (0, 0, 1))
    assert first == again and first != other
    assert [each.load().tobytes() for each in first] == [each.load().tobytes() for each in again]
    assert list(picturebook(3, 0)) == first[:3]


def test_text_files_beside_images(folder):
    selection = from_folder(folder)
    assert ids(selection) == ["a.png", "b.png", "c.png"] and not selection.skipped
    assert selection.examples[1].caption == "a plain picture, b"
    assert selection.examples[1].load().getpixel((0, 0)) == (30, 200, 30)


def test_a_relative_source_is_taken_from_the_project(folder):
    assert len(select(Prepare(source=os.path.relpath(folder, ROOT))).examples) == 3


def test_count_takes_the_first_and_tells_how_many_are_left(folder):
    selection = from_folder(folder, 2)
    assert ids(selection) == ["a.png", "b.png"] and selection.unused == 1
    assert from_folder(folder, 3).unused == 0


def test_subfolders_are_read_and_hidden_ones_are_not(folder):
    for sub in ("more", ".hidden"):
        (folder / sub).mkdir()
        Image.new("RGB", (9, 9)).save(folder / sub / "d.JPG")
        (folder / sub / "d.txt").write_text("black")
    assert ids(from_folder(folder)) == ["a.png", "b.png", "c.png", "more/d.JPG"]


def test_bad_examples_are_listed_and_good_ones_used(folder):
    whole = (folder / "a.png").read_bytes()
    bad = {"cut.png": whole[: len(whole) // 2], "zero.png": b"", "page.png": b"<html></html>"}
    for name, data in bad.items():
        (folder / name).write_bytes(data)
        (folder / name).with_suffix(".txt").write_text("bad")
    (folder / "alone.png").write_bytes(whole)
    (folder / "nobody.txt").write_text("a caption of nothing")
    for name, text in {"blank": b" \n", "latin": "ä".encode("latin-1")}.items():
        (folder / f"{name}.png").write_bytes(whole)
        (folder / f"{name}.txt").write_bytes(text)
    selection = from_folder(folder)
    assert ids(selection) == ["a.png", "b.png", "c.png"]
    assert reasons(selection) == {
        "alone.png": "image without caption",
        "nobody.txt": "caption without image",
        "cut.png": "image is truncated or damaged",
        "zero.png": "image is empty (zero bytes)",
        "page.png": "not an image that Pillow can read",
        "blank.png": "caption is empty",
        "latin.png": "caption is not UTF-8 text",
    }


def test_metadata_wins_over_text_files_and_the_rest_keep_theirs(folder, metadata):
    metadata({"file_name": "./b.png", "text": "from\nthe  table"}, "", {"file_name": "a.png", "text": "A"})
    selection = from_folder(folder)
    assert [each.caption for each in selection.examples] == ["A", "from the table", "a plain picture, c"]


def test_bad_and_hostile_lines_of_metadata_are_listed(folder, metadata):
    outside = folder.parent / "outside.png"
    Image.new("RGB", (9, 9)).save(outside)
    hostile = ["../../etc/passwd", "../outside.png", str(outside), "sub/../../outside.png", ".."]
    metadata(
        *({"file_name": name, "text": "x"} for name in hostile),
        "{not json", "[1, 2]", {"file_name": "a.png"}, {"file_name": 3, "text": "x"}, "[" * 100_000,
        {"file_name": "gone.png", "text": "x"}, {"file_name": "nul\0.png", "text": "x"},
        {"file_name": "a.png", "text": "once"}, {"file_name": "a.png", "text": "twice"}, {"file_name": "b.png", "text": " "},
    )  # fmt: skip
    selection = from_folder(folder)
    listed = [each.reason for each in selection.skipped]
    assert listed.count("names a file outside the folder") == len(hostile)
    assert listed.count("is not JSON") == 2 and listed.count("lacks file_name or text") == 3
    assert listed.count("names a file that is not there") == 2 and listed.count("names a file a second time") == 1
    assert reasons(selection)["b.png"] == "caption is empty"
    assert [(each.id, each.caption) for each in selection.examples] == [("a.png", "once"), ("c.png", "a plain picture, c")]


def test_text_that_no_file_can_hold_is_mended(folder, metadata):
    metadata('{"file_name": "a.png", "text": "half \\ud800 a pair"}')
    assert from_folder(folder, 1).examples[0].caption == "half ? a pair"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_file_name_that_is_no_text_has_an_id_that_is(folder):
    for ending in (b"png", b"txt"):
        os.rename(os.fsencode(folder / "a.") + ending, os.fsencode(folder) + b"/a\xff." + ending)
    assert ids(from_folder(folder)) == ["a?.png", "b.png", "c.png"]


def test_a_folder_without_anything_is_one_clear_error(tmp_path):
    with pytest.raises(SourceError, match="there is no such folder"):
        from_folder(tmp_path / "nowhere")
    with pytest.raises(SourceError, match="has no images"):
        from_folder(tmp_path)
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    with pytest.raises(SourceError, match="none of its 1 images has a caption"):
        from_folder(tmp_path)
    (tmp_path / "a.txt").write_text("  ")
    (tmp_path / "b.png").write_bytes(b"")
    (tmp_path / "b.txt").write_text("nothing")
    with pytest.raises(SourceError, match=r"1 × caption is empty, 1 × image is empty \(zero bytes\)"):
        from_folder(tmp_path)


def test_an_image_that_changes_on_the_way_is_noticed(folder):
    example = from_folder(folder, 1).examples[0]
    Image.new("RGB", (9, 9)).save(folder / "a.png")
    with pytest.raises(SourceError, match="changed or removed"):
        example.load()


def test_scenes_new_to_the_base_are_drawn_with_captions_that_say_them():
    drawn = select(Prepare(source="unseen", count=12)).examples
    again = select(Prepare(source="unseen", count=12)).examples
    assert [each.image_hash for each in drawn] == [each.image_hash for each in again]
    assert len({each.image_hash for each in drawn}) == 12 and all("snowman" in each.caption for each in drawn)
    assert all(each.load().size == (64, 64) and each.load().mode == "RGB" for each in drawn)
    assert not any("a orange" in each.caption for each in drawn)


def test_a_prior_comes_last_under_names_of_its_own(folder):
    selection = select(Prepare(source=str(folder), count=0, prior=str(folder), prior_count=2))
    assert [each.id for each in selection.examples] == ["a.png", "b.png", "c.png", "prior/a.png", "prior/b.png"]
    assert [each.prior for each in selection.examples] == [False] * 3 + [True] * 2 and selection.unused == 1
