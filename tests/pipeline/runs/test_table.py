"""What is shown of runs: lists, the index, the difference of two, a page of a notebook, progress; and what is removed."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from types import SimpleNamespace

import nbformat
import pytest
from PIL import Image

from nbs_lib.cli.doctor import examine, hub
from nbs_lib.config import Compare, Train
from nbs_lib.config.validation import COMMAND, ParameterError, setting
from nbs_lib.files import HOST, write_atomic
from nbs_lib.pipeline import paths as places
from nbs_lib.pipeline import progress
from nbs_lib.pipeline.notebook_html import last_words, write_page
from nbs_lib.pipeline.paths import find_run
from nbs_lib.pipeline.runs import cleanup as tidy
from nbs_lib.pipeline.runs import index_page as index
from nbs_lib.pipeline.runs.diff import describe_difference, difference
from nbs_lib.pipeline.runs.show import describe_run
from nbs_lib.pipeline.runs.table import list_rows, select_rows
from nbs_lib.run.run import Run

EVIL = "<script>alert(1)</script>"


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    """Three runs: done, failed, killed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setattr(places, "ROOT", tmp_path)
    for name, status, loss in (
        ("one", "done", 0.1),
        ("two", "failed", 0.3),
        ("three", "running", None),
    ):
        stage = {
            "status": status,
            "started": "2026-01-01T10:00:00+00:00",
            "seconds": 61.0,
            "outputs": {},
        }
        stage |= {
            "parameters": {"steps": 5, "rank": 4 if loss else 8},
            "held_out_loss": [1.0, loss] if loss else None,
        }
        asked = {"recipe": EVIL, "prepare": {}, "train": stage["parameters"], "compare": {}}
        record = {
            "status": status,
            "asked": asked,
            "versions": {"torch": name},
            "stages": {"train": stage | {"loss": loss}},
        }
        write_atomic(tmp_path / "outputs" / name / "run.json", json.dumps(record))
        picture = tmp_path / "outputs" / name / "compare" / "pictures" / "p00_s0_tuned.png"
        picture.parent.mkdir(parents=True)
        Image.new("RGB", (512, 512), (10 if name == "two" else 0, 0, 0)).save(picture)
    return tmp_path / "outputs"


def test_a_parameter_is_named_as_it_is_given_where_it_is_read(monkeypatch):
    given = [
        ("prepare", "captions", "names"),
        ("train", "deepspeed", False),
        ("prepare", "template", "a {} cat"),
    ]
    assert [setting(*each) for each in given] == [
        "captions = 'names'",
        "deepspeed = False",
        "template = 'a {} cat'",
    ]
    monkeypatch.setenv(COMMAND, "1")
    said = [
        "-p prepare.captions=names",
        "-p train.deepspeed=false",
        "-p 'prepare.template=a {} cat'",
    ]
    assert [setting(*each) for each in given] == said


def test_what_was_compiled_for_a_checkout_that_is_gone_goes(outputs, tmp_path):
    here, gone = tmp_path / "a chéckout", tmp_path / "no longer there"
    (here / "site-packages" / "torch").mkdir(parents=True)
    for name, paths in (("a", [here]), ("b", [gone]), ("c", [gone, here]), ("d", [])):
        for i, path in enumerate(paths):
            place = str(path / "site-packages").replace(" ", "$ ")
            text = f"cflags = -DX -isystem {place}/torch/include -isystem {place}/torch/include/api -fPIC\n"
            write_atomic(
                tmp_path / f"caches/torch_extensions/onepass-{name}/op{i}/build.ninja", text
            )
        write_atomic(tmp_path / f"caches/torch_extensions/onepass-{name}/onepass.lock", "")
    write_atomic(
        tmp_path / "caches/torch_extensions/py311/op/build.ninja",
        "-isystem /nowhere/torch/include\n",
    )
    assert [left.path.name for left in tidy.gc(dry_run=True) if "compiled" in left.why] == [
        "onepass-b"
    ]
    tidy.gc()
    assert sorted(path.name for path in (tmp_path / "caches" / "torch_extensions").iterdir()) == [
        "onepass-a", "onepass-c", "onepass-d", "py311",
    ]  # fmt: skip


def test_runs_are_chosen_and_ordered_by_any_value(outputs):
    found = list_rows()
    assert [each["name"] for each in select_rows(found, sort="-held_out")] == [
        "two",
        "one",
        "three",
    ]
    assert [each["name"] for each in select_rows(found, sort="loss")] == ["one", "two", "three"]
    assert [each["name"] for each in select_rows(found, where=["rank=4", "held_out<0.2"])] == [
        "one"
    ]
    assert [each["name"] for each in select_rows(found, "t*", ["status=failed"])] == ["two"]
    with pytest.raises(ParameterError, match="did you mean"):
        select_rows(found, sort="held_ou")
    with pytest.raises(ParameterError, match="is to be a number"):
        select_rows(found, where=["rank=four"])


def test_rows_of_some_values_have_them_as_rows_of_all_do(outputs):
    wanted = ["train.rank", "loss", "held_out"]
    some, whole = list_rows(wanted), list_rows()
    assert [[each.get(name) for name in wanted] for each in some] == [
        [each.get(name) for name in wanted] for each in whole
    ]
    assert some[0]["train.rank"] == 4 and "train.steps" in whole[0] and "train.steps" not in some[0]


def test_a_run_that_is_done_stage_by_stage_in_notebooks_is_as_far_as_its_last_one(outputs):
    done = [
        {"status": "done", "started": f"2026-01-0{day}T10:00:00+00:00", "outputs": {}}
        for day in (1, 2, 3)
    ]
    run = Run(outputs / "notebooks")
    for stages, status in (
        ({"prepare": done[0]}, "prepared"),
        ({"prepare": done[0], "train": done[1]}, "trained"),
        ({"prepare": done[2], "train": done[1]}, "prepared"),
        ({"prepare": done[0], "train": done[1] | {"status": "running"}}, "interrupted"),
    ):
        run.update(status="running", stages=stages)
        assert select_rows(list_rows(), "notebooks")[0]["status"] == status, stages
    run.update(asked={"recipe": "demo"}, stages={"prepare": done[0]})
    assert select_rows(list_rows(), "notebooks")[0]["status"] == "interrupted", (
        "a command would have gone on"
    )


def test_a_run_that_nobody_works_on_is_not_running(outputs):
    assert {each["name"]: each["status"] for each in list_rows()} == {
        "one": "done",
        "two": "failed",
        "three": "interrupted",
    }
    with Run(outputs / "three").exclusive():
        assert {each["name"]: each["status"] for each in list_rows()}["three"] == "running"


def test_the_index_is_one_page_that_escapes_what_was_typed(outputs):
    (outputs / "one" / "report.html").write_text("")
    page = index.refresh().read_text()
    assert EVIL not in page and "&lt;script&gt;alert(1)" in page
    assert re.findall('src="([^"]*)"', page) == [
        f"{name}/thumbnail.png" for name in ("one", "three", "two")
    ]
    assert 'href="one/report.html"' in page and "data:image" not in page
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page) and "default-src 'none'" in page
    assert Image.open(outputs / "one" / "thumbnail.png").size == (96, 96)
    index.refresh()
    assert (outputs / "index.html").read_text() == page


def test_what_rests_on_another_result_is_out_of_date_wherever_it_is_shown(outputs):
    run = Run(outputs / "again")
    stages = {
        "prepare": stage_of("1", {}),
        "train": stage_of("2", {"adapter": "new"}) | {"loss": 0.5},
    }
    compare = stage_of("3", {"report.html": "x"}) | {
        "inputs": {"train": "of the old adapter"},
        "time_ratio": 0.51,
    }
    run.update(status="done", stages=stages | {"compare": compare})
    for name in ("report.html", "3_compare.html", "2_train.html"):
        write_atomic(run.folder / name, "")
    Image.new("RGB", (8, 8)).save(run.thumbnail)
    [found] = select_rows(list_rows(), "again")
    assert (
        found["status"] == "out of date"
        and found["outdated"] == "compare"
        and found["train.loss"] == 0.5
    )
    assert not [name for name in found if "time_ratio" in name], "a number of the adapter before"
    lines = "\n".join(describe_run(run))
    assert "again: out of date" in lines and "it rests on another train than the last one" in lines
    assert "report, out of date: " in lines and "0.51" not in lines
    page = index.refresh().read_text()
    assert (
        'again/report.html">report, out of date<' in page
        and 'again/3_compare.html">3, out of date<' in page
    )
    assert (
        'again/2_train.html">2<' in page
        and "again/thumbnail.png" not in page
        and "0.51" not in page
    )
    run.update(status="failed")
    assert select_rows(list_rows(), "again")[0]["status"] == "failed" and "0.51" not in "\n".join(
        describe_run(run)
    )
    run.update(
        status="done",
        stages={name: each for name, each in run.read()["stages"].items() if name != "compare"},
    )
    assert select_rows(list_rows(), "again")[0]["status"] == "done"


def stage_of(day: str, outputs: dict) -> dict:
    return {
        "status": "done",
        "started": f"2026-01-0{day}T10:00:00+00:00",
        "seconds": 1.0,
        "outputs": outputs,
    }


def test_a_picture_of_the_index_is_a_small_one_of_the_run_s_own(outputs, tmp_path):
    Image.new("RGB", (4000, 4000)).save(tmp_path / "large.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "elsewhere.png")
    for name in ("one", "two", "three"):
        shutil.rmtree(outputs / name / "compare")
    (outputs / "one" / "thumbnail.png").symlink_to(tmp_path / "elsewhere.png")
    shutil.copy(tmp_path / "large.png", outputs / "two" / "thumbnail.png")
    os.mkfifo(outputs / "three" / "thumbnail.png")
    assert "thumbnail.png" not in index.refresh().read_text()


def test_two_thousand_runs_are_a_small_page(outputs):
    record = (outputs / "one" / "run.json").read_bytes()
    for number in range(300):
        write_atomic(outputs / f"a-run-of-many-{number}" / "run.json", record)
    assert index.refresh().stat().st_size < 300 * 1500, "2,000 of them are less than 3 MB"


def test_two_runs_differ_in_so_much(outputs):
    one, two, three = (find_run(name) for name in ("one", "two", "three"))
    found = difference(one, two)
    assert found.parameters == {} and found.versions == {"torch": ["one", "two"]}
    assert found.numbers["train.loss"] == [0.1, 0.3] and found.pictures == {
        "p00_s0_tuned.png": pytest.approx(10 / 3)
    }
    assert not found.same and difference(one, one).same
    assert difference(one, three).parameters == {"train.rank": [4, 8]}
    assert any("3.33 of 255 apart" in line for line in describe_difference(one, two, found))


def test_a_run_in_words(outputs):
    lines = describe_run(find_run("two"))
    assert (
        lines[0] == f"two: failed, of the recipe {EVIL}"
        and "go on with it: onepass resume two" in lines
    )
    assert "    rank = 4" in lines and "held_out: 0.3" in lines


def test_a_run_is_found_by_its_folder_and_none_leads_out(outputs):
    assert find_run("one/").folder == find_run(str(outputs / "one")).folder == outputs / "one"
    for name in ("../notebooks", "/etc", "one/../two/..", "cache", ".", "", "oen"):
        with pytest.raises(ParameterError, match="there is no such run"):
            find_run(name)


def test_removing_follows_no_link(outputs, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine").write_text("kept")
    (outputs / "one" / "cache").symlink_to(tmp_path / "elsewhere")
    before = sorted(outputs.rglob("*"))
    assert (
        tidy.remove_run(["one", "t*"], dry_run=True) == ["one", "three", "two"]
        and sorted(outputs.rglob("*")) == before
    )
    assert tidy.remove_run(["one", "t*"]) == ["one", "three", "two"]
    assert (tmp_path / "elsewhere" / "mine").read_text() == "kept" and places.run_names() == []


def test_gc_takes_what_nothing_needs(outputs):
    (outputs / "one" / "checkpoints" / "step-1").mkdir(parents=True)
    (outputs / "two" / "checkpoints" / "step-1").mkdir(parents=True)
    (outputs / "cache" / ("a" * 64)).mkdir(parents=True)
    (outputs / "one" / f".run.json.{HOST}.4194303.part").write_text("half")
    (outputs / "one" / ".run.json.elsewhere.4194303.part").write_text("of another machine")
    (outputs / "two" / ".space").write_bytes(b"0")
    parts = [
        f"two/samples/{'0' * 24}.4194303.part",
        f"two/samples/.{'0' * 24}.png.{HOST}.4194303.part",
    ]
    parts += [
        "two/prepare/.kept.parquet.4194303.part",
        f"two/prepare/.dropped.parquet.{HOST}.4194303.part",
    ]
    parts += ["two/checkpoints/.step-0000001.part"]
    for part in parts:
        (outputs / part).parent.mkdir(exist_ok=True)
        (outputs / part).write_text("half")
    gone = {str(each.path.relative_to(outputs)) for each in tidy.gc(dry_run=True)}
    assert gone == {
        "one/checkpoints",
        f"cache/{'a' * 64}",
        f"one/.run.json.{HOST}.4194303.part",
        "two/.space",
        *parts,
    }
    assert (outputs / "one" / "checkpoints").exists()
    with Run(outputs / "two").exclusive():
        assert f"two/samples/{'0' * 24}.4194303.part" not in {
            str(each.path.relative_to(outputs)) for each in tidy.gc(dry_run=True)
        }
    assert len(tidy.gc()) == 9 and tidy.gc() == [] and (outputs / "two" / "checkpoints").exists()


def test_a_notebook_s_page_shows_its_pictures_and_runs_nothing(tmp_path):
    output = nbformat.v4.new_output(
        "display_data", {"image/png": "iVBORw0KGgo=", "text/html": EVIL}
    )
    forms = {
        "application/vnd.jupyter.widget-view+json": {"model_id": "x"},
        "text/plain": "VBox(children=(",
    }
    widget = nbformat.v4.new_output("display_data", forms)
    said = nbformat.v4.new_output("stream", text="the end\n")
    cells = [
        nbformat.v4.new_code_cell("1", outputs=[output, widget]),
        nbformat.v4.new_code_cell("2", outputs=[said]),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "n.ipynb")
    page = write_page(tmp_path / "n.ipynb").read_text()
    assert (
        "script-src" not in page
        and "default-src 'none'; img-src data:" in page
        and "http:" not in page.split("<body>")[0]
    )
    assert (
        not re.search(r"<script[^>]*src", page) and "widget-view" not in page and "VBox" not in page
    )
    assert last_words(tmp_path / "n.ipynb") == "the end"


def test_progress_says_step_loss_and_time_left(tmp_path):
    run, log, said = Run(tmp_path), SimpleNamespace(seen="\rencode 3/7"), []
    run.metrics.write_text('{"step": 300, "loss": 9.0, "seconds": 1}\n')  # of an earlier training
    with progress.Progress(run, "train", Train(steps=300), log, said.append) as shown:
        assert shown.words() == "train 0 s: encode 3/7"
        run.metrics.write_text('{"step": 100, "loss": 0.5}\n')
        assert shown.words() == "train 0 s: step 100 of 300, loss 0.5000"
        shown.first = (100, time.monotonic() - 10)
        run.metrics.write_text(
            '{"step": 150, "loss": 0.25}\n{"step": 150, "held_out_loss": 1}\n{"step": 2'
        )
        assert shown.words() == "train 0 s: step 150 of 300, loss 0.2500, 30 s left"
    run.update(stages={"train": {"resolved": {"steps": 160}}})
    with progress.Progress(run, "train", Train(epochs=2), log, said.append) as shown:
        run.metrics.write_text('{"step": 40, "loss": 0.125}\n')
        assert shown.words() == "train 0 s: step 40 of 160, loss 0.1250"
    log.seen = "Kept\rguided :  25%|███▎         | 140/570 [00:23<01:09,  6.18picture/s]"
    with progress.Progress(run, "compare", Compare(), log, said.append) as shown:
        assert shown.words() == "compare 0 s: guided 140 of 570, 01:09 left"
    assert [progress.format_duration(each) for each in (4, 200, 7500)] == [
        "4 s",
        "3 min 20 s",
        "2 h 5 min",
    ]


def test_in_a_terminal_the_progress_is_a_line_that_moves(project):
    ours, theirs = os.openpty()
    command = [sys.executable, "-W", "ignore", "-m", "nbs_lib", "run", "demo", "--name", "moving"]
    known = os.environ | {"PYTHONPATH": str(project.folder), "DOES_prepare": "time.sleep(1.5)"}
    done = subprocess.run(
        command, cwd=project.folder, env=known, stdout=subprocess.PIPE, stderr=theirs, text=True
    )
    os.close(theirs)
    assert done.returncode == 0 and "[1/3] prepare: not done yet" in done.stdout
    assert b"\r\x1b[K      prepare " in os.read(ours, 1 << 16)
    os.close(ours)


def test_the_doctor_looks_at_everything_and_says_how_it_is_mended(monkeypatch):
    found = {each.what: each for each in examine()}
    assert {"Python", "packages", "C++ compiler", "ninja", "GPUs", "memory", "disk", "hub"} <= set(
        found
    )
    assert {"DeepSpeed's operators", "models of the hub"} <= set(found)
    assert found["Python"].state == found["packages"].state == found["C++ compiler"].state == "good"
    assert all(each.mend for each in found.values() if each.state == "wrong")
    monkeypatch.setenv("HF_HUB_OFFLINE", "")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert (hub().state, hub().mend) == ("note", "export HF_HUB_OFFLINE=1")


def test_what_is_wrong_is_said_with_the_command_that_mends_it(project, tmp_path):
    (project.folder / "constraints.txt").rename(tmp_path / "kept")
    try:
        (project.folder / "constraints.txt").write_text("torch==1.0\n")
        done = project.onepass("doctor", status=1, PATH="/nowhere", CXX="", HF_HUB_OFFLINE="1")
    finally:
        (tmp_path / "kept").rename(project.folder / "constraints.txt")
    assert (
        "wrong   packages: torch 2.13.0, tested with 1.0" in done.stdout
        and "pip install -c constraints.txt" in done.stdout
    )
    assert (
        "wrong   C++ compiler: no c++, no g++" in done.stdout
        and "mend it: apt-get install g++" in done.stdout
    )
    assert done.stderr.startswith("onepass: wrong here: packages, C++ compiler")
