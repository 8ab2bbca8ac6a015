"""The enclosure of a source: links out of its folder, `..`, pipes and folders are not read."""

import ctypes
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from zipfile import ZipFile

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from nbs_lib.prepare.enclosure import LEADS_OUT, NO_ACCESS, NOT_A_FILE
from nbs_lib.prepare.examples import SourceError
from nbs_lib.prepare.sources import SourceOptions, open_source

from .test_sources import add, examples, png, read, reasons, write_table

SECRET = "a secret caption"


@pytest.fixture
def outside(folder) -> Path:
    path = folder.parent / "outside"
    path.mkdir()
    return path


@pytest.mark.parametrize("kind", [".jsonl", ".csv", ".parquet"])
def test_a_folder_s_table_that_is_a_link_out_or_a_pipe_is_listed(folder, outside, kind):
    secret = write_table(outside, kind, [("a.png", SECRET)])
    table = folder / secret.name
    table.symlink_to(secret)
    assert reasons(folder) == {table.name: LEADS_OUT} and SECRET not in examples(folder).values()
    table.unlink()
    os.mkfifo(table)
    assert reasons(folder) == {table.name: NOT_A_FILE} and len(examples(folder)) == 3
    table.unlink()
    (folder / ".kept").write_bytes(secret.read_bytes())
    table.symlink_to(".kept")
    assert examples(folder)["a.png"] == SECRET, "a link that stays inside is followed"
    assert examples(secret.rename(folder / f"own{kind}"))["a.png"] == SECRET


def test_archives_that_are_links_out_or_pipes_are_listed(tmp_path):
    outside, folder = tmp_path / "outside", tmp_path / "shards"
    outside.mkdir()
    folder.mkdir()
    for path in (outside / "secret.tar", folder / "own.tar"):
        with tarfile.open(path, "w") as tar:
            add(tar, "1.png", png())
            add(tar, "1.txt", path.stem.encode())
    (folder / "out.tar").symlink_to(outside / "secret.tar")
    os.mkfifo(folder / "pipe.tar")
    for source in (folder, folder / "*.tar"):
        assert examples(source) == {"own/1": "own"}
        assert reasons(source) == {"out.tar": LEADS_OUT, "pipe.tar": NOT_A_FILE}
    assert examples(folder / "out.tar") == {"out/1": "secret"}, (
        "a path that the user gave is the user's own"
    )


def test_parts_of_diffusiondb_that_are_links_out_or_pipes_are_listed(tmp_path):
    outside, folder = tmp_path / "outside", tmp_path / "database"
    outside.mkdir()
    (folder / "images").mkdir(parents=True)
    for path in (outside / "secret.zip", folder / "images" / "part-000001.zip"):
        with ZipFile(path, "w") as archive:
            archive.writestr("1.png", png())
            archive.writestr("part.json", json.dumps({"1.png": {"p": path.stem}}))
    (folder / "images" / "part-000002.zip").symlink_to(outside / "secret.zip")
    os.mkfifo(folder / "images" / "part-000003.zip")
    rows = {
        "image_name": ["1.png"],
        "prompt": [SECRET],
        "part_id": [1],
        "image_nsfw": [0.1],
        "prompt_nsfw": [0.1],
    }
    pyarrow.parquet.write_table(pyarrow.table(rows), outside / "metadata.parquet")
    (folder / "metadata.parquet").symlink_to(outside / "metadata.parquet")
    items = read(folder)
    assert examples(folder) == {"part-000001/1.png": "part-000001"}
    assert [(item.id, item.reason, item.detail) for item in items if hasattr(item, "reason")] == [
        ("metadata.parquet", "scores cannot be read", f"part 1: {LEADS_OUT}"),
        ("part-000002.zip", LEADS_OUT, ""),
        ("part-000003.zip", NOT_A_FILE, ""),
    ]


@pytest.fixture
def saved(tmp_path) -> Path:
    """A data set that `save_to_disk` wrote, and another beside it."""
    rows = {"image": [{"bytes": png(), "path": None}], "text": ["own"]}
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    for name, text in {"saved": "own", "other": SECRET}.items():
        data = datasets.Dataset.from_dict(rows | {"text": [text]}, features=features)
        data.save_to_disk(tmp_path / name)
    return tmp_path / "saved"


def test_a_saved_data_set_is_read_from_its_own_folder_only(saved, tmp_path):
    assert examples(saved) == {"train-000000": "own"}
    arrow = next(saved.glob("*.arrow"))
    state = json.loads((saved / "state.json").read_text())
    for name in (
        f"../other/{arrow.name}",
        str(tmp_path / "other" / arrow.name),
        f"sub/../../other/{arrow.name}",
        "gone.arrow",
    ):
        (saved / "state.json").write_text(json.dumps(state | {"_data_files": [{"filename": name}]}))
        with pytest.raises(SourceError, match="nothing outside the data set is read"):
            read(saved)
    (saved / "state.json").write_text(json.dumps(state))
    arrow.unlink()
    arrow.symlink_to(tmp_path / "other" / arrow.name)
    with pytest.raises(SourceError, match=LEADS_OUT):
        read(saved)
    arrow.unlink()
    os.mkfifo(arrow)
    with pytest.raises(SourceError, match=NOT_A_FILE):
        read(saved)
    shutil.rmtree(saved)
    saved.mkdir()
    (saved / "dataset_dict.json").write_text(json.dumps({"splits": ["../other"]}))
    with pytest.raises(SourceError, match="outside its folder"):
        read(saved, split="../other")


@pytest.mark.parametrize(
    "name",
    ["../outside/x.jsonl", "{outside}/x.jsonl", "file://{outside}/x.jsonl", "a/../../outside/*"],
)
def test_a_data_set_s_card_names_files_of_its_own_folder_only(tmp_path, name):
    folder, outside = tmp_path / "named", tmp_path / "outside"
    for path, text in ((folder, "own"), (outside, SECRET)):
        path.mkdir()
        (path / "x.jsonl").write_text(json.dumps({"image": "x.png", "text": text}))
        (path / "x.png").write_bytes(png())
    name = name.replace("{outside}", str(outside))
    card = "---\nconfigs:\n- config_name: default\n  data_files:\n"
    card += "  - split: train\n    path: '{}'\n---\n"
    (folder / "README.md").write_text(card.format("x.jsonl"))
    assert list(examples(f"hf:{folder}").values()) == ["own"]
    (folder / "README.md").write_text(card.format(name))
    with pytest.raises(SourceError, match="names .* outside its folder"):
        read(f"hf:{folder}")
    (folder / "README.md").unlink()
    (folder / ".huggingface.yaml").write_text(card.format(name).replace("---\n", ""))
    with pytest.raises(SourceError, match="names .* outside its folder"):
        read(f"hf:{folder}")


def without_privileges(work) -> list:
    """Return the result of `work` in a process that may not read everything, even as root."""
    here, writer = os.pipe()
    if not (child := os.fork()):
        status = 1
        try:
            header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
            assert ctypes.CDLL(None).capset(header, none) == 0  # of capabilities: capset(2)
            os.write(writer, json.dumps(work()).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(here, "rb") as file:
        items = file.read()
    assert os.waitpid(child, 0)[1] == 0
    return json.loads(items)


def test_unreadable_files_and_folders_are_listed(folder):
    (folder / "closed").mkdir()
    (folder / "closed" / "d.png").write_bytes(png())
    table = write_table(folder, ".csv", [("a.png", "x")])
    (folder / "b.txt").chmod(0)
    table.chmod(0)
    (folder / "closed").chmod(0)
    try:
        items = without_privileges(
            lambda: [
                reasons(folder),
                examples(folder),
                open_source(str(folder), SourceOptions()).stamp(),
            ]
        )
        alone = without_privileges(lambda: refused(table))
        (folder / "closed").chmod(0o700)
        folder.chmod(0)
        whole_folder = without_privileges(lambda: reasons(folder))
    finally:
        folder.chmod(0o700)
    listed = {
        "metadata.csv": NO_ACCESS,
        "closed": "folder cannot be read",
        "b.png": "caption file cannot be read",
    }
    assert items == [listed, {"a.png": "a plain picture, a", "c.png": "a plain picture, c"}, ""]
    assert "cannot be read: Permission denied" in alone and whole_folder == {
        ".": "folder cannot be read"
    }


def refused(source: Path) -> str:
    with pytest.raises(SourceError) as fault:
        read(source)
    return str(fault.value)


def test_folders_may_have_any_depth(tmp_path):
    deep = tmp_path
    descriptor = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1100):  # beyond Python's recursion, and within a path's 4,096 bytes
        os.mkdir("a", dir_fd=descriptor)
        below = os.open("a", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor, deep = below, deep / "a"
    for name, data in {"a.png": png(), "a.txt": b"far down"}.items():
        os.write(file := os.open(name, os.O_WRONLY | os.O_CREAT, dir_fd=descriptor), data)
        os.close(file)
    os.close(descriptor)
    assert list(examples(tmp_path).values()) == ["far down"]
    subprocess.run(["rm", "-rf", tmp_path / "a"], check=True)


def test_pipes_given_directly_are_refused(tmp_path):
    for name in ("x.tar", "x.jsonl", "x.csv", "x.parquet", "x.txt"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(SourceError, match="no such folder or file"):
            read(tmp_path / name)
