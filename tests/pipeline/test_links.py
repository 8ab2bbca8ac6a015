"""Links in a run: refused, and neither followed nor changed."""

import json
import os
from pathlib import Path

import pytest

from nbs_lib.config import Prepare
from nbs_lib.files import HOST, files_in, remove, remove_stale_temporaries
from nbs_lib.pipeline import paths
from nbs_lib.pipeline.runs import cleanup
from nbs_lib.run.run import Run, RunError

FOLDERS = (
    *("prepare", "validation", "samples", "compare", "adapter", "model", "checkpoints", "gallery"),
    *("export", "checkpoints/step-0000001", "export/kohya"),
)
FILES = (
    *("run.json", "log.txt", "metrics.jsonl", "usage.jsonl", "thumbnail.png", "report.html"),
    *("loss.png", "votes.jsonl", "1_prepare.ipynb", "1_prepare.html", "2_train-host1.ipynb"),
    *(".stage.lock", ".recipe.lock", ".space", ".failed-0", ".launched.json", ".stages.jsonl"),
    "gallery/.gallery.jsonl.lock",
)


@pytest.fixture
def outside(tmp_path) -> Path:
    """A folder of somebody else's."""
    folder = tmp_path / "outside"
    (folder / "deep").mkdir(parents=True)
    for name in (
        "mine.png",
        "step-0000005.png",
        "kept.parquet",
        "deep/note",
        f".x.{HOST}.4194303.part",
    ):
        (folder / name).write_text("mine")
    return folder


def content(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("name", [*FOLDERS, *FILES])
def test_link_in_a_run_is_refused_before_anything_is_written(run_folder, outside, name):
    path, before = run_folder / name, content(outside)
    path.parent.mkdir(parents=True)
    path.symlink_to(outside if name in FOLDERS else outside / "mine.png")
    with (
        pytest.raises(RunError, match="is a link to") as refused,
        Run(run_folder).stage(Prepare(run=str(run_folder))),
    ):
        (path / "new").write_text("") if path.is_dir() else path.write_text("")
    assert str(path) in str(refused.value) and len(str(refused.value).splitlines()) == 1
    assert content(outside) == before and path.is_symlink()


def test_run_and_outputs_may_be_links(tmp_path):
    for folder_name in ("disk/one", "real/outputs"):
        (tmp_path / folder_name).mkdir(parents=True)
    (tmp_path / "outputs").symlink_to(tmp_path / "real" / "outputs")
    (tmp_path / "outputs" / "one").symlink_to(tmp_path / "disk" / "one")
    (tmp_path / "outputs" / "one" / "cache").symlink_to("../cache/KEY")
    for name in ("one", "two"):
        config = Prepare(run=str(tmp_path / "outputs" / name))
        with Run(config.run).stage(config) as fields:
            (Run(config.run).folder / "a.txt").write_text("a")
            fields["outputs"] = ["a.txt"]
        assert Run(config.run).changed(config) == []
    assert (tmp_path / "disk" / "one" / "run.json").is_file() and (
        tmp_path / "real" / "outputs" / "two" / "run.json"
    ).is_file()


def test_gc_removes_nothing_through_a_link(tmp_path, outside, monkeypatch):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setenv(
        "XDG_CACHE_HOME", str(tmp_path)
    )  # or it would remove what was compiled on this machine
    outputs = tmp_path / "outputs"
    record = json.dumps({"status": "done", "stages": {"train": {"status": "done"}}})
    for folder in (outputs / "one", outputs / "two", outputs / "three", outside):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "run.json").write_text(record)
    (outside / "checkpoints" / "step-1").mkdir(parents=True)
    (outside / "checkpoints" / "step-1" / "weights").write_text("mine")
    (outside / ".space").write_text("mine")
    before = content(outside)
    (outputs / "linked").symlink_to(outside)
    (outputs / "one" / "checkpoints").symlink_to(outside / "checkpoints")
    (outputs / "one" / "samples").symlink_to(outside)
    (outputs / "two" / "checkpoints").mkdir()
    (outputs / "three" / "checkpoints").mkdir()
    (outputs / "three" / "checkpoints" / "step-0000001").symlink_to(outside)
    (outputs / f".x.{HOST}.4194303.part").symlink_to(outside)
    gone = {str(item.path.relative_to(outputs)) for item in cleanup.gc()}
    assert (
        gone == {"two/checkpoints", f".x.{HOST}.4194303.part"}
        and not (outputs / "two" / "checkpoints").exists()
    )
    assert content(outside) == before and cleanup.gc() == []
    assert cleanup.remove_run(["linked", "one"]) == ["linked", "one"] and content(outside) == before


def test_remove_removes_the_link_not_its_target(tmp_path, outside):
    before = content(outside)
    (tmp_path / "link").symlink_to(outside)
    assert files_in(tmp_path / "link") == [] and len(files_in(outside)) == 4
    (tmp_path / f".link.{HOST}.4194303.part").symlink_to(outside)
    remove_stale_temporaries(tmp_path)
    remove(tmp_path / "link")
    assert content(outside) == before and os.listdir(tmp_path) == ["outside"]


def test_command_on_a_run_with_a_link_is_one_sentence(project, outside):
    before = content(outside)
    folder = project.outputs / "with-a-link"
    folder.mkdir(parents=True)
    (folder / "log.txt").symlink_to(outside / "mine.png")
    done = project.onepass("run", "demo", "--name", "with-a-link", status=1)
    assert (
        done.stderr.startswith("onepass: ")
        and "log.txt is a link to" in done.stderr
        and len(done.stderr.splitlines()) == 1
    )
    assert content(outside) == before and [path.name for path in folder.iterdir()] == ["log.txt"]
