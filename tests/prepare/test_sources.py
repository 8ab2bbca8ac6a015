"""The examples that each source yields, in their order, and the reasons of skipped items."""

import csv
import io
import json
import os
import tarfile
from pathlib import Path
from zipfile import ZipFile

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from nbs_lib.config import Prepare
from nbs_lib.files import ROOT
from nbs_lib.prepare.examples import Example, InFile, Skipped, SourceError
from nbs_lib.prepare.images import ImageError
from nbs_lib.prepare.sources import SourceOptions, open_source, source_options
from nbs_lib.prepare.sources.diffusiondb import parts_of


def read(source: str | Path, **options) -> list[Example | Skipped]:
    return list(open_source(str(source), SourceOptions(**options)))


def examples(source: str | Path, **options) -> dict[str, str]:
    """Captions by id, in order."""
    return {item.id: item.caption for item in read(source, **options) if isinstance(item, Example)}


def reasons(source: str | Path, **options) -> dict[str, str]:
    return {item.id: item.reason for item in read(source, **options) if isinstance(item, Skipped)}


def png(colour=(9, 9, 9), size=(24, 16)) -> bytes:
    Image.new("RGB", size, colour).save(file := io.BytesIO(), "PNG")
    return file.getvalue()


def test_drawn_pictures_come_from_their_seed():
    for kind in ("picturebook", "unseen"):
        first, again, other = (read(kind, count=8, seed=seed) for seed in (0, 0, 1))
        assert [(item.id, item.caption) for item in first] == [
            (item.id, item.caption) for item in again
        ]
        assert [item.image.load()[1] for item in first] == [item.image.load()[1] for item in again]
        assert [item.caption for item in first] != [item.caption for item in other]
        assert [item.id for item in read(kind, count=3)] == [item.id for item in first][:3]
        image = first[0].image.load()[0]
        assert image.size == (128, 128) and image.mode == "RGB"
    assert all(
        "snowman" in item.caption and "a orange" not in item.caption
        for item in read("unseen", count=12)
    )


def test_text_files_beside_images(folder):
    (folder / "c.txt").rename(folder / "c.caption")
    assert examples(folder) == {f"{name}.png": f"a plain picture, {name}" for name in "abc"}
    assert (
        read(folder)[1].image.load()[0].getpixel((0, 0)) == (30, 200, 30)
        and open_source(str(folder), SourceOptions()).total() == 3
    )


def test_a_relative_source_is_taken_from_the_project(folder):
    config = Prepare(source=os.path.relpath(folder, ROOT))
    assert len(list(open_source(config.source, source_options(config, 0)))) == 3


def test_captions_may_be_the_names(folder):
    (folder / "a_cat_on_a_mat.png").write_bytes(png())
    assert examples(folder, captions="names")["a_cat_on_a_mat.png"] == "a cat on a mat"


def test_subfolders_are_read_and_hidden_ones_are_not(folder):
    for sub in ("more", ".hidden"):
        (folder / sub).mkdir()
        (folder / sub / "d.JPG").write_bytes(png())
        (folder / sub / "d.txt").write_text("black")
    assert list(examples(folder)) == ["a.png", "b.png", "c.png", "more/d.JPG"]


def test_captions_that_cannot_be_used_are_listed(folder):
    (folder / "alone.png").write_bytes(png())
    (folder / "nobody.txt").write_text("a caption of nothing")
    for name, text in {
        "latin": "ä".encode("latin-1"),
        "long": b"x" * (2**20 + 1),
        "nul": b"two\0words",
    }.items():
        (folder / f"{name}.png").write_bytes(png())
        (folder / f"{name}.txt").write_bytes(text)
    assert reasons(folder) == {
        "nobody.txt": "caption without image",
        "alone.png": "image without caption",
        "latin.png": "caption is not UTF-8 text",
        "long.png": "caption is longer than 1 MiB",
    }
    assert examples(folder)["nul.png"] == "two words"


def test_links_stay_inside_except_those_of_a_download_from_the_hub(folder):
    outside = folder.parent / "outside"
    outside.mkdir()
    (outside / "secret.png").write_bytes(png())
    (outside / "secret.txt").write_text("secret")
    for name, target in {
        "out.png": outside / "secret.png",
        "in.png": "a.png",
        "self.png": "self.png",
        "gone.png": "no",
    }.items():
        (folder / name).symlink_to(target)
        (folder / name).with_suffix(".txt").write_text("a link")
    (folder / "text.png").write_bytes(png())
    (folder / "text.txt").symlink_to(outside / "secret.txt")
    (folder / "sub").symlink_to(outside)
    assert list(examples(folder)) == ["a.png", "b.png", "c.png", "in.png"]
    assert reasons(folder) == {
        "out.png": "link that leads out of the folder",
        "self.png": "link that leads nowhere",
        "gone.png": "link that leads nowhere",
        "text.png": "link that leads out of the folder",
        "sub": "link to a folder, which is not followed",
    }
    hub = folder.parent / "datasets--me--mine"
    (hub / "blobs").mkdir(parents=True)
    (hub / "snapshots" / "abc").mkdir(parents=True)
    (hub / "blobs" / "1").write_bytes(png())
    (hub / "blobs" / "2").write_text("of the hub")
    for name, blob in {"a.png": "1", "a.txt": "2"}.items():
        (hub / "snapshots" / "abc" / name).symlink_to(f"../../blobs/{blob}")
    assert examples(hub / "snapshots" / "abc") == {"a.png": "of the hub"}


def test_pipes_and_links_out_are_not_loaded_for_previews(folder):
    """Dropped images are loaded for the run's pictures; loading a pipe would never end."""
    (folder.parent / "private.png").write_bytes(png())
    os.mkfifo(folder / "pipe.png")
    (folder / "endless.png").symlink_to("/dev/zero")
    (folder / "out.png").symlink_to(folder.parent / "private.png")
    (folder / "own.png").write_bytes(png())
    for captions in (False, True):
        for name in ("pipe", "endless", "out") if captions else ():
            (folder / f"{name}.txt").write_text("a caption")
        images = {item.id: item.image for item in read(folder) if isinstance(item, Skipped)}
        assert images.keys() == {"pipe.png", "endless.png", "out.png", "own.png"}
        assert [name for name, image in images.items() if image] == ["own.png"]
    with pytest.raises(ImageError):
        InFile(folder / "pipe.png").load()


def test_the_stamp_of_a_folder_changes_with_every_item(folder):
    (folder / ".list.jsonl").write_text('{"file_name": "a.png", "text": "one"}\n')
    source = open_source(str(folder / ".list.jsonl"), SourceOptions())
    before = source.stamp()
    assert before and before == source.stamp()
    (folder / ".list.jsonl").write_text('{"file_name": "a.png", "text": "another"}\n')
    assert source.stamp() != before
    (folder / ".data").mkdir()
    (folder / "images").symlink_to(".data")
    assert source.stamp() == open_source(str(folder), SourceOptions()).stamp() == "", (
        "nobody looks where the link leads to"
    )


def test_a_folder_with_images_is_no_webdataset(folder):
    (folder / "images").mkdir()
    (folder / "images" / "d.png").write_bytes(png())
    with tarfile.open(folder / "backup.tar", "w") as tar:
        add(tar, "x.png", png())
    write_table(folder, ".parquet", [("images/d.png", "in a table")])
    assert examples(folder)["images/d.png"] == "in a table" and len(examples(folder)) == 4


def write_table(
    folder: Path, kind: str, rows: list[tuple[str, str]], columns=("file_name", "text")
) -> Path:
    path = folder / f"metadata{kind}"
    if kind == ".jsonl":
        path.write_text(
            "".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows)
        )
    elif kind == ".csv":
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([columns, *rows])
    else:
        pyarrow.parquet.write_table(
            pyarrow.table({name: [row[i] for row in rows] for i, name in enumerate(columns)}), path
        )
    return path


@pytest.mark.parametrize("kind", [".jsonl", ".csv", ".parquet"])
def test_a_table_goes_before_text_files(folder, kind):
    path = write_table(
        folder, kind, [("./b.png", "from\nthe  table"), ("a.png", "A, with a comma")]
    )
    expected = {"b.png": "from the table", "a.png": "A, with a comma"}
    assert examples(folder) == expected | {"c.png": "a plain picture, c"}
    assert list(examples(folder))[:2] == ["b.png", "a.png"], "in the table's order"
    assert examples(path) == expected, "by itself it is a source, too"
    write_table(folder, kind, [("a.png", "other")], ("picture", "words"))
    assert examples(path, image_column="picture", caption_column="words") == {"a.png": "other"}


def test_bad_and_hostile_lines_of_metadata_are_listed(folder, metadata):
    outside = folder.parent / "outside.png"
    outside.write_bytes(png())
    hostile = ["../../etc/passwd", "../outside.png", str(outside), "sub/../../outside.png", ".."]
    metadata(
        *({"file_name": name, "text": "x"} for name in hostile),
        "{not json", "[1, 2]", {"file_name": "a.png"}, {"file_name": 3, "text": "x"}, "[" * 100_000,
        {"file_name": "gone.png", "text": "x"}, {"file_name": "nul\0.png", "text": "x"},
        {"file_name": "a.png", "text": "once"}, {"file_name": "a.png", "text": "twice"},
    )  # fmt: skip
    listed = [item.reason for item in read(folder) if isinstance(item, Skipped)]
    assert listed.count("names a file outside the folder") == len(hostile)
    assert listed.count("is not JSON") == 2 and listed.count("lacks file_name or text") == 3
    assert (
        listed.count("names a file that is not there") == 2
        and listed.count("names a file a second time") == 1
    )
    assert examples(folder) == {
        "a.png": "once",
        "b.png": "a plain picture, b",
        "c.png": "a plain picture, c",
    }


def test_a_damaged_table_in_a_folder_is_listed_and_one_by_itself_is_an_error(folder):
    path = write_table(folder, ".parquet", [("a.png", "x")], ("file_name", "label"))
    assert reasons(folder)["metadata.parquet"].startswith(
        "table lacks a column of captions; it has file_name, label"
    )
    assert len(examples(folder)) == 3
    with pytest.raises(
        SourceError,
        match="lacks a column of captions; it has file_name, label; image_column and caption_col",
    ):
        read(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert reasons(folder)["metadata.parquet"] == "table is truncated or damaged"


def test_halves_of_surrogate_pairs_are_replaced(folder, metadata):
    metadata('{"file_name": "a.png", "text": "half \\ud800 a pair"}')
    assert examples(folder)["a.png"] == "half ? a pair"


def test_an_undecodable_file_name_has_a_readable_id(folder):
    for ending in (b"png", b"txt"):
        os.rename(os.fsencode(folder / "a.") + ending, os.fsencode(folder) + b"/a\xff." + ending)
    assert set(examples(folder)) == {"a?.png", "b.png", "c.png"}


def test_prompts_are_lines_of_a_text_file(tmp_path):
    (tmp_path / "prompts.txt").write_bytes(b"a cat\n\n  a   dog \n\xff\n")
    assert examples(tmp_path / "prompts.txt") == {
        "prompts-000001": "a cat",
        "prompts-000003": "a dog",
    }
    assert all(
        item.image is None for item in read(tmp_path / "prompts.txt") if isinstance(item, Example)
    )
    assert reasons(tmp_path / "prompts.txt") == {"prompts.txt, line 4": "caption is not UTF-8 text"}


def add(tar: tarfile.TarFile, name: str, data: bytes):
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def test_webdataset_archives_are_read_in_place_up_to_their_damage(tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    for shard in range(2):
        with tarfile.open(folder / f"{shard:03d}.tar", "w") as tar:
            for i in range(4):
                add(tar, f"{i}.png", png((i, shard, 0)))
                if i < 2:
                    add(tar, f"{i}.txt", f"number {i}".encode())
                else:
                    add(
                        tar,
                        f"{i}.json",
                        json.dumps({"caption": f"number {i}"} if i == 2 else {"other": 1}).encode(),
                    )
            add(tar, "../../climbs/out.png", png())
            add(tar, "../../climbs/out.txt", b"read in place, so it reaches nothing")
            link = tarfile.TarInfo("link.png")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(link)
    items = [item for item in read(folder) if isinstance(item, Example)]
    assert [item.id for item in items][:3] == ["000/0", "000/1", "000/2"] and len(items) == 8
    assert (
        items[1].image.load()[0].getpixel((0, 0)) == (1, 0, 0)
        and not (tmp_path.parent / "climbs").exists()
    )
    assert reasons(folder) == {"000/3": "image without caption", "001/3": "image without caption"}
    assert len(examples(folder / "*1.tar")) == 4
    content = (folder / "001.tar").read_bytes()
    flipped = bytearray(content)
    flipped[2048] ^= 0xFF  # in a header
    (folder / "001.tar").write_bytes(flipped)
    assert reasons(folder)["001.tar"] == "archive is cut short or damaged", (
        "tarfile takes it for the end"
    )
    (folder / "001.tar").write_bytes(content[:2600])
    assert (
        len(examples(folder)) > 4
        and reasons(folder)["001.tar"] == "archive is cut short or damaged"
    )
    with pytest.raises(SourceError, match="no archive has such a name"):
        read(folder / "x*.tar")


@pytest.fixture
def diffusiondb(tmp_path) -> Path:
    """Three parts of three images in the published layout."""
    folder, rows = tmp_path / "diffusiondb", []
    (folder / "images").mkdir(parents=True)
    for part in (1, 2, 3):
        names = [f"{part}{i}-uuid.png" for i in range(3)]
        with ZipFile(folder / "images" / f"part-{part:06d}.zip", "w") as archive:
            for i, name in enumerate(names):
                archive.writestr(name, png((part, i, 0)))
            archive.writestr(
                f"part-{part:06d}.json",
                json.dumps({name: {"p": f"prompt {name}", "se": 7} for name in names}),
            )
        for i, name in enumerate(names):
            row = {"image_name": name, "prompt": f"prompt {name}", "part_id": part}
            row |= {"seed": 7, "step": 50, "cfg": 7.0, "sampler": "k_lms"}
            row |= {"width": 24, "height": 16, "image_nsfw": 0.5 * i, "prompt_nsfw": 0.001}
            rows.append(row)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "metadata.parquet")
    return folder


def test_diffusiondb_is_read_as_it_is_published(diffusiondb):
    items = read(diffusiondb)
    assert [item.id for item in items][:2] == [
        "part-000001/10-uuid.png",
        "part-000001/11-uuid.png",
    ] and len(items) == 9
    assert (
        items[1].caption == "prompt 11-uuid.png"
        and items[1].metadata["image_nsfw"] == 0.5
        and items[1].metadata["seed"] == 7
    )
    assert items[4].image.load()[0].getpixel((0, 0)) == (2, 1, 0)
    assert (
        len(read(diffusiondb, subset="2")) == 6
        and len(read(diffusiondb, subset="2m_first_1k")) == 3
    )


def test_damage_in_diffusiondb_affects_damaged_files_alone(diffusiondb):
    with ZipFile(diffusiondb / "images" / "part-000001.zip", "a") as archive:
        archive.writestr("../../climbs.png", png())
    second = diffusiondb / "images" / "part-000002.zip"
    second.write_bytes(second.read_bytes()[:300])
    (diffusiondb / "images" / "part-000003.zip").unlink()
    assert reasons(diffusiondb, subset="3") == {
        "part-000001/../../climbs.png": "names a file outside the archive",
        "part-000002.zip": "archive is cut short or damaged",
        "part-000003.zip": "part is not there",
    }
    assert len(examples(diffusiondb, subset="3")) == 3
    (diffusiondb / "metadata.parquet").write_bytes(b"no table")
    assert len(examples(diffusiondb, subset="1")) == 3, "without scores, for they are not known"
    assert reasons(diffusiondb, subset="1")["metadata.parquet"] == "scores cannot be read"


def test_diffusiondb_subsets_name_parts():
    assert parts_of("2m_first_10k", 0) == list(range(1, 11)) and parts_of("2m_first_1k", 0) == [1]
    assert len(parts_of("2m_all", 0)) == 2000 and parts_of("25", 0) == list(range(1, 26))
    random_parts = parts_of("2m_random_5k", 3)
    assert len(set(random_parts)) == 5 and random_parts == parts_of("2m_random_5k", 3) != parts_of(
        "2m_random_5k", 4
    )
    for wrong in ("large_first_1k", "2m_first_1", "2m_first_3000k", "", "many"):
        with pytest.raises(SourceError, match="give 2m_first_1k, 2m_first_10k"):
            parts_of(wrong, 0)


def test_data_sets_of_the_library_are_read_saved_as_parquet_and_streamed(tmp_path):
    rows = {
        "picture": [{"bytes": png((i, 0, 0)), "path": None} for i in range(3)],
        "caption": ["x", "y", None],
    }
    features = datasets.Features({"picture": datasets.Image(), "caption": datasets.Value("string")})
    data = datasets.Dataset.from_dict(rows, features=features)
    data.save_to_disk(tmp_path / "saved")
    (tmp_path / "parquet").mkdir()
    data.to_parquet(tmp_path / "parquet" / "train.parquet")
    for source in (tmp_path / "saved", f"hf:{tmp_path / 'parquet'}"):
        items = read(source, image_column="picture")
        assert [item.caption for item in items] == ["x", "y", ""] and items[0].image.stamp()
        assert items[1].image.load()[0].getpixel((0, 0)) == (1, 0, 0)
    streamed = read(f"hf:{tmp_path / 'parquet'}", image_column="picture", streaming=True)
    assert [item.id for item in streamed] == ["train-000000", "train-000001", "train-000002"]
    assert (
        examples(tmp_path / "parquet" / "train.parquet", image_column="picture")["train-000001"]
        == "y"
    )
    with pytest.raises(
        SourceError, match="no column of images; it has picture, caption; image_column"
    ):
        read(tmp_path / "saved")
    with pytest.raises(SourceError, match="hf:.*subset, split"):
        read(f"hf:{tmp_path / 'nowhere'}")


def test_a_data_set_that_names_files_stays_within_its_folder(tmp_path):
    folder = tmp_path / "named"
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "a.png").write_bytes(png())
    (tmp_path / "secret.png").write_bytes(png())
    rows = [
        {"image": name, "text": "x"}
        for name in ("images/a.png", "../secret.png", "/dev/zero", "gone.png", "nul\0.png")
    ]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    items = read(f"hf:{folder}")
    assert [item.id for item in items if isinstance(item, Example)] == ["train-000000"]
    assert [item.reason for item in items if isinstance(item, Skipped)] == [
        "names a file outside the data set",
        "names a file outside the data set",
        "names a file that is not there",
        "names a file that is not there",
    ]
    assert open_source(f"hf:{folder}", SourceOptions()).stamp() == "", (
        "the files may change without it"
    )
    (folder / "data.jsonl").write_text('{"image": "images/a.png", "text": 7}\n')
    assert [item.reason for item in read(f"hf:{folder}")] == ["caption is no text"]


def test_an_unknown_source_is_refused(tmp_path):
    with pytest.raises(SourceError, match="there is no such folder or file; give picturebook"):
        read(tmp_path / "nowhere")
    (tmp_path / "a.docx").touch()
    with pytest.raises(SourceError, match="a file that ends in .tar, .txt"):
        read(tmp_path / "a.docx")
