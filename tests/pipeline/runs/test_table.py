"""Lists, index, difference, description and removal of runs, and the doctor."""

import json
import os
import re
import shutil

import nbformat
import pytest
from PIL import Image

from nbs_lib.cli.doctor import check_hub, run_checks
from nbs_lib.config.validation import COMMAND, ParameterError, setting
from nbs_lib.files import HOST, write_atomic
from nbs_lib.pipeline import paths, start_page
from nbs_lib.pipeline.notebook_html import last_output, write_page
from nbs_lib.pipeline.paths import find_run
from nbs_lib.pipeline.runs import cleanup, index_page
from nbs_lib.pipeline.runs.diff import describe_difference, difference
from nbs_lib.pipeline.runs.query import select_rows
from nbs_lib.pipeline.runs.show import describe_run
from nbs_lib.pipeline.runs.table import COLUMNS, columns, list_rows
from nbs_lib.run.run import Run

EVIL = "<script>alert(1)</script>"


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    """Three runs: done, failed, killed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setattr(paths, "ROOT", tmp_path)
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


def test_setting_is_written_as_its_reader_gives_it(monkeypatch):
    settings = [
        ("prepare", "captions", "names"),
        ("train", "deepspeed", False),
        ("prepare", "template", "a {} cat"),
    ]
    assert [setting(*row) for row in settings] == [
        "captions = 'names'",
        "deepspeed = False",
        "template = 'a {} cat'",
    ]
    monkeypatch.setenv(COMMAND, "1")
    texts = [
        "-p prepare.captions=names",
        "-p train.deepspeed=false",
        "-p 'prepare.template=a {} cat'",
    ]
    assert [setting(*row) for row in settings] == texts


def test_gc_removes_extensions_of_a_removed_checkout(outputs, tmp_path):
    here, gone = tmp_path / "a chéckout", tmp_path / "no longer there"
    (here / "site-packages" / "torch").mkdir(parents=True)
    for name, checkouts in (("a", [here]), ("b", [gone]), ("c", [gone, here]), ("d", [])):
        for i, path in enumerate(checkouts):
            folder = str(path / "site-packages").replace(" ", "$ ")
            include = f"-isystem {folder}/torch/include"
            text = f"cflags = -DX {include} {include}/api -fPIC\n"
            write_atomic(
                tmp_path / f"caches/torch_extensions/onepass-{name}/op{i}/build.ninja", text
            )
        write_atomic(tmp_path / f"caches/torch_extensions/onepass-{name}/onepass.lock", "")
    write_atomic(
        tmp_path / "caches/torch_extensions/py311/op/build.ninja",
        "-isystem /nowhere/torch/include\n",
    )
    assert [left.path.name for left in cleanup.gc(dry_run=True) if "compiled" in left.why] == [
        "onepass-b"
    ]
    cleanup.gc()
    assert sorted(path.name for path in (tmp_path / "caches" / "torch_extensions").iterdir()) == [
        "onepass-a", "onepass-c", "onepass-d", "py311",
    ]  # fmt: skip


def test_rows_are_selected_and_sorted_by_any_value(outputs):
    result = list_rows()
    assert [row["name"] for row in select_rows(result, sort="-held_out")] == [
        "two",
        "one",
        "three",
    ]
    assert [row["name"] for row in select_rows(result, sort="loss")] == ["one", "two", "three"]
    assert [row["name"] for row in select_rows(result, where=["rank=4", "held_out<0.2"])] == ["one"]
    assert [row["name"] for row in select_rows(result, "t*", ["status=failed"])] == ["two"]
    with pytest.raises(ParameterError, match="did you mean"):
        select_rows(result, sort="held_ou")
    with pytest.raises(ParameterError, match="must be a number"):
        select_rows(result, where=["rank=four"])


def test_rows_of_few_values_equal_rows_of_all(outputs):
    names = ["train.rank", "loss", "held_out"]
    some, complete = list_rows(names), list_rows()
    assert [[row.get(name) for name in names] for row in some] == [
        [row.get(name) for name in names] for row in complete
    ]
    assert (
        some[0]["train.rank"] == 4 and "train.steps" in complete[0] and "train.steps" not in some[0]
    )


def test_fidelity_is_listed_beside_runs_that_were_compared_before_it_was_measured(outputs):
    fidelity = {"distance_ratio": {"value": 0.25, "low": 0.2}, "nearer": {"rate": 0.9}}
    for name, row in (("one", {"fidelity": fidelity}), ("two", {}), ("three", {"fidelity": None})):
        contenders = {"tuned": {"nfe": 25.0} | row}
        Run(outputs / name).update_stage("compare", status="done", contenders=contenders)
    rows = {row["name"]: row for row in list_rows(["distance_ratio", "nearer"])}
    assert (rows["one"]["distance_ratio"], rows["one"]["nearer"]) == (0.25, 0.9)
    assert not any("nearer" in rows[name] for name in ("two", "three"))
    table = columns(list_rows(COLUMNS), list(COLUMNS))
    assert table[0][-2:] == ["distance_ratio", "nearer"]
    assert [row[-2:] for row in table[1:]] == [["0.25", "0.9"], ["–", "–"], ["–", "–"]]


def test_status_of_a_run_executed_in_notebooks(outputs):
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


def test_killed_run_is_interrupted(outputs):
    assert {row["name"]: row["status"] for row in list_rows()} == {
        "one": "done",
        "two": "failed",
        "three": "interrupted",
    }
    with Run(outputs / "three").exclusive():
        assert {row["name"]: row["status"] for row in list_rows()}["three"] == "running"


def test_index_is_one_page_with_escaped_text(outputs):
    (outputs / "one" / "report.html").write_text("")
    page = index_page.refresh().read_text()
    assert EVIL not in page and "&lt;script&gt;alert(1)" in page
    assert re.findall('src="([^"]*)"', page) == [
        f"{name}/thumbnail.png" for name in ("one", "three", "two")
    ]
    assert 'href="one/report.html"' in page and "data:image" not in page
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page) and "default-src 'none'" in page
    assert Image.open(outputs / "one" / "thumbnail.png").size == (96, 96)
    index_page.refresh()
    assert (outputs / "index.html").read_text() == page


def test_the_start_page_lists_the_newest_runs_with_their_pictures(outputs, monkeypatch):
    (outputs / "one" / "report.html").write_text("")
    Run(outputs / "one").update(name=EVIL)
    (outputs / "lab").mkdir()
    monkeypatch.chdir(outputs / "lab")
    page = start_page.runs_table()
    assert "<script" not in page and page.count("<tr>") == 1 + 3
    assert 'href="../one/report.html"' in page and "data:image/png" in page
    monkeypatch.setattr(start_page, "MAX_RUNS", 1)
    assert start_page.runs_table().count("<tr>") == 2 and "3 runs, the 1 newest" in (
        start_page.runs_table()
    )
    for name in ("one", "two", "three"):
        shutil.rmtree(outputs / name)
    assert start_page.runs_table() == start_page.NO_RUNS


def test_the_start_page_says_what_each_recipe_is_for():
    page = start_page.recipes_table()
    assert "onepass run demo<" in page and "The embedded base on two processes" in page


def test_outdated_comparison_is_marked_everywhere(outputs):
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
    [result] = select_rows(list_rows(), "again")
    assert (
        result["status"] == "out of date"
        and result["outdated"] == "compare"
        and result["train.loss"] == 0.5
    )
    assert not [name for name in result if "time_ratio" in name], "a number of the adapter before"
    lines = "\n".join(describe_run(run))
    assert "again: out of date" in lines and "it rests on another train than the last one" in lines
    assert "report, out of date: " in lines and "0.51" not in lines
    page = index_page.refresh().read_text()
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
        stages={name: row for name, row in run.read()["stages"].items() if name != "compare"},
    )
    assert select_rows(list_rows(), "again")[0]["status"] == "done"


def stage_of(day: str, outputs: dict) -> dict:
    return {
        "status": "done",
        "started": f"2026-01-0{day}T10:00:00+00:00",
        "seconds": 1.0,
        "outputs": outputs,
    }


def test_index_shows_only_small_pictures_of_the_run(outputs, tmp_path):
    Image.new("RGB", (4000, 4000)).save(tmp_path / "large.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "elsewhere.png")
    for name in ("one", "two", "three"):
        shutil.rmtree(outputs / name / "compare")
    (outputs / "one" / "thumbnail.png").symlink_to(tmp_path / "elsewhere.png")
    shutil.copy(tmp_path / "large.png", outputs / "two" / "thumbnail.png")
    os.mkfifo(outputs / "three" / "thumbnail.png")
    assert "thumbnail.png" not in index_page.refresh().read_text()


def test_index_of_many_runs_is_small(outputs):
    record = (outputs / "one" / "run.json").read_bytes()
    for number in range(300):
        write_atomic(outputs / f"a-run-of-many-{number}" / "run.json", record)
    assert index_page.refresh().stat().st_size < 300 * 1500, "2,000 of them are less than 3 MB"


def test_difference_of_two_runs(outputs):
    one, two, three = (find_run(name) for name in ("one", "two", "three"))
    result = difference(one, two)
    assert result.parameters == {} and result.versions == {"torch": ["one", "two"]}
    assert result.numbers["train.loss"] == [0.1, 0.3] and result.pictures == {
        "p00_s0_tuned.png": pytest.approx(10 / 3)
    }
    assert not result.same and difference(one, one).same
    assert difference(one, three).parameters == {"train.rank": [4, 8]}
    lines = describe_difference(one, two, result)
    assert any("3.33 of 255 apart on average" in line for line in lines)
    head, *summary = lines[:6]
    assert head == "one  |  two" and lines[6] == ""
    assert [line.partition(":")[0] for line in summary] == [
        "parameters",
        "versions",
        "numbers",
        "costs",
        "pictures",
    ]
    assert summary[0] == "parameters: equal"
    assert summary[1] == "versions:   1 differ: torch one | two"
    assert "loss 0.1 | 0.3" in summary[2], "by the short name that people look for"
    assert summary[4].endswith("the others 3.3 of 255 apart; p00_s0_tuned.png the most, 3.3")
    same = describe_difference(one, one, difference(one, one))
    assert len(same) == 6 and sum(line.endswith("equal") for line in same) >= 4


def test_describe_run(outputs):
    lines = describe_run(find_run("two"))
    assert (
        lines[0] == f"two: failed, of the recipe {EVIL}"
        and "go on with it: onepass resume two" in lines
    )
    assert "    rank = 4" in lines and "held_out: 0.3" in lines


def test_find_run_stays_in_outputs(outputs):
    assert find_run("one/").folder == find_run(str(outputs / "one")).folder == outputs / "one"
    for name in ("../notebooks", "/etc", "one/../two/..", "cache", ".", "", "oen"):
        with pytest.raises(ParameterError, match="there is no such run"):
            find_run(name)


def test_remove_run_follows_no_link(outputs, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine").write_text("kept")
    (outputs / "one" / "cache").symlink_to(tmp_path / "elsewhere")
    before = sorted(outputs.rglob("*"))
    assert (
        cleanup.remove_run(["one", "t*"], dry_run=True) == ["one", "three", "two"]
        and sorted(outputs.rglob("*")) == before
    )
    assert cleanup.remove_run(["one", "t*"]) == ["one", "three", "two"]
    assert (tmp_path / "elsewhere" / "mine").read_text() == "kept" and paths.run_names() == []


def test_gc_removes_what_nothing_needs(outputs):
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
    gone = {str(row.path.relative_to(outputs)) for row in cleanup.gc(dry_run=True)}
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
            str(row.path.relative_to(outputs)) for row in cleanup.gc(dry_run=True)
        }
    assert (
        len(cleanup.gc()) == 9 and cleanup.gc() == [] and (outputs / "two" / "checkpoints").exists()
    )


def test_notebook_page_shows_pictures_and_runs_no_script(tmp_path):
    output = nbformat.v4.new_output(
        "display_data", {"image/png": "iVBORw0KGgo=", "text/html": EVIL}
    )
    forms = {
        "application/vnd.jupyter.widget-view+json": {"model_id": "x"},
        "text/plain": "VBox(children=(",
    }
    widget = nbformat.v4.new_output("display_data", forms)
    texts = nbformat.v4.new_output("stream", text="the end\n")
    cells = [
        nbformat.v4.new_code_cell("1", outputs=[output, widget]),
        nbformat.v4.new_code_cell("2", outputs=[texts]),
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
    assert last_output(tmp_path / "n.ipynb") == "the end"


def test_doctor_checks_everything_and_names_fixes(monkeypatch):
    result = {finding.check: finding for finding in run_checks()}
    assert {"Python", "packages", "C++ compiler", "GPUs", "memory", "disk", "hub"} <= set(result)
    assert {"DeepSpeed", "models of the hub"} <= set(result)
    good = {name for name, finding in result.items() if finding.state == "good"}
    assert {"Python", "packages", "C++ compiler", "DeepSpeed"} <= good
    assert all(finding.fix for finding in result.values() if finding.state == "wrong")
    monkeypatch.setenv("HF_HUB_OFFLINE", "")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert (check_hub().state, check_hub().fix) == ("note", "export HF_HUB_OFFLINE=1")


def test_doctor_prints_what_is_wrong_and_the_fix(project, tmp_path):
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
        "note    C++ compiler: none: only contenders `on compile`" in done.stdout
        and "fix: apt-get install g++" in done.stdout
    )
    assert done.stderr.startswith("onepass: wrong here: packages")


def test_notebooks_run_in_copies_that_keep_what_their_user_changed(outputs, tmp_path):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    original, copy = folder / "2_train.ipynb", outputs / "lab" / "2_train.ipynb"

    def write(path, parameter: str, code: str, time: float):
        cells = [nbformat.v4.new_code_cell(source) for source in (parameter, code)]
        cells[0].metadata["tags"] = ["parameters"]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
        os.utime(path, (time, time))

    write(original, "steps = 400", "train()", 1)
    assert paths.copy_notebooks() == outputs / "lab" and copy.read_text() == original.read_text()
    write(copy, "steps = 5", "train()", 2)
    write(original, "steps = 300", "train()", 3)
    paths.copy_notebooks()
    assert "steps = 5" in copy.read_text(), "the same code, with the user's parameters"
    write(copy, "steps = 5", "mine()", 4)
    paths.copy_notebooks()
    assert "mine()" in copy.read_text(), "changed after the original"
    write(original, "steps = 300", "train(more)", 5)
    paths.copy_notebooks()
    assert copy.read_text() == original.read_text()
    assert "mine()" in (outputs / "lab" / "2_train.before-update.ipynb").read_text()
