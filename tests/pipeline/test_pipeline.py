import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from nbs_lib.config import STAGES
from nbs_lib.config.validation import ParameterError
from nbs_lib.files import ROOT
from nbs_lib.pipeline import kernel, paths
from nbs_lib.pipeline import run as run_recipe
from nbs_lib.pipeline.notebook import StageError, execute
from nbs_lib.pipeline.notebook_html import is_unfinished
from nbs_lib.pipeline.paths import run_folder
from nbs_lib.pipeline.recipes import configs, find_recipe, read_recipe
from nbs_lib.run.run import Run, RunError

pytestmark = pytest.mark.slow

RECIPES = ROOT / "notebooks" / "recipes"
ONEPASS = "import sys; sys.argv = ['onepass', *sys.argv[1:]]; from nbs_lib.cli import main; main()"
ONEPASS_IN = f"""
import sys
from pathlib import Path
from nbs_lib.pipeline import paths
paths.ROOT = Path(sys.argv.pop(1))
{ONEPASS}
"""
"""The command in a project of its own."""
PAGE = """
import os, signal, time
from nbs_lib.config import {cls}
from nbs_lib.config.validation import from_notebook
from nbs_lib.run.run import Run
config = from_notebook({cls}, globals())
with Run(config.run).stage(config) as fields:
    {does}
    (Run(config.run).folder / "{stage}.txt").write_text("made")
    fields["outputs"] = ["{stage}.txt"]
"""
DIES, SLEEPS, WORKS = "os.kill(os.getpid(), signal.SIGKILL)", "time.sleep(60)", "pass"
STUBBORN = "signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_is_valid(path, tmp_path):
    configs(path.stem, tmp_path)


def test_overrides_are_typed_by_the_stage(tmp_path):
    stages = configs(
        "demo", tmp_path, ["train.learning_rate=1e-4", "train.steps=7", "compare.seeds=[1, 2]"]
    )
    assert (
        stages["train"].learning_rate == 1e-4
        and stages["train"].steps == 7
        and stages["compare"].seeds == [1, 2]
    )


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        (["demo", "-p", "train.stepz=5"], "did you mean steps?"),
        (["demo", "-p", "train.steps=many"], "whole number"),
        (["demo", "-p", "steps=5"], "STAGE.NAME=VALUE"),
        (["demo", "-p", "train.run=x"], "--name"),
        (["demo", "--name", "../up"], "--name"),
        (["demo", "-p", "train.steps=["], "-p train.steps=[: it is not good YAML"),
        (["demo", "-p", "train.steps=1e400"], "whole number"),
        (["demo", "-p", "prepare.source=pictures/b\udcff"], "whole characters of UTF-8"),
        (["absent"], "allowed is one of cached, consistency, demo"),
    ],
)
def test_wrong_command_prints_one_sentence_and_writes_nothing(python, arguments, fact):
    name = [] if "--name" in arguments else ["--name", f"never {os.getpid()}"]
    done = python(ONEPASS, "run", *arguments, *name)
    assert done.returncode == 2
    assert (
        fact in done.stderr
        and len(done.stderr.strip().splitlines()) == 1
        and "Traceback" not in done.stderr
    )
    assert not (ROOT / "outputs" / f"never {os.getpid()}").exists()


@pytest.mark.parametrize(
    "value", ["/data/my #1 images", "@x", "123", "true", "a: b", "'quoted'", "[", " x "]
)
def test_text_overrides_are_not_parsed(tmp_path, value):
    assert configs("demo", tmp_path, [f"prepare.source={value}"])["prepare"].source == value


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        ("- a\n", "must be a mapping"),
        ("bake:\n  a: 1\n", "must be a mapping with prepare, train, compare"),
        ("1: 2\n", "must be a mapping with prepare, train, compare"),
        ("train: 5\n", "train must be a mapping"),
        ("{", "not good YAML"),
        ("train:\n  steps: 1\n  learning_rate: 0.1\n  steps: 2\n", "line 4: steps stands twice"),
        ("train:\n  steps: 1\ntrain:\n  learning_rate: 0.1\n", "line 3: train stands twice"),
        ("train:\n\tsteps: 1\n", "line 2: found character '\\t'"),
        ("train:\n  learning_rate: !!int 1:30\n", "line 2: '1:30' is no int"),
    ],
)
def test_damaged_recipe_is_refused(tmp_path, content, fact):
    path = tmp_path / "r.yaml"
    path.write_text(content)
    with pytest.raises(ParameterError) as refused:
        read_recipe(find_recipe(str(path)))
    assert str(refused.value).startswith(f"recipe {path}") and fact in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["1", "on", "2020-01-01"])
def test_recipe_key_that_is_no_text_is_refused(tmp_path, name):
    (tmp_path / "r.yaml").write_text(f"train:\n  {name}: 2\n")
    with pytest.raises(ParameterError, match="Train has none of that name"):
        configs(str(tmp_path / "r.yaml"), tmp_path)


def test_run_names_stay_in_outputs():
    assert run_folder("my run").parent == ROOT / "outputs"
    for name in ("..", "a/b", "", ".x", "cache"):
        with pytest.raises(ParameterError):
            run_folder(name)


@pytest.fixture
def pages(tmp_path, monkeypatch):
    """Return the function that writes notebooks which do little, with the real library."""

    def write(does: str):
        write_pages(tmp_path / "notebooks", does)

    monkeypatch.setattr(paths, "ROOT", tmp_path)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "recipes").symlink_to(RECIPES)
    return write


def write_pages(folder: Path, does: str):
    for number, (stage, cls) in enumerate(STAGES.items(), 1):
        page = nbformat.read(ROOT / "notebooks" / f"{number}_{stage}.ipynb", 4)
        page.cells[2:] = [
            nbformat.v4.new_code_cell(PAGE.format(cls=cls.__name__, stage=stage, does=does))
        ]
        nbformat.write(page, folder / f"{number}_{stage}.ipynb")


def record_all(run: Run, stages: dict):
    for stage, config in stages.items():
        with run.stage(config) as fields:
            (run.folder / f"{stage}.txt").write_text("made")
            fields["outputs"] = [f"{stage}.txt"]


def test_unchanged_run_is_kept(pages):
    run, lines = Run(run_folder("kept")), []
    record_all(run, configs("demo", run.folder))
    assert run_recipe("demo", name="kept", say=lines.append).folder == run.folder
    assert lines == [
        f"[{number}/3] {stage}: unchanged, kept" for number, stage in enumerate(STAGES, 1)
    ]
    assert not run.notebook("prepare").exists()


def test_torn_notebook_reruns_its_stage_and_a_missing_page_is_written(pages):
    # the command was killed, or the disk was full, after the kernel had recorded the stage as done
    pages(WORKS)
    run, lines = run_recipe("demo", name="torn", say=lambda _: None), []
    torn = run.notebook("train")
    torn.write_bytes(torn.read_bytes()[:-100])
    page = run.notebook("prepare").with_suffix(".html")
    page.unlink()
    run_recipe("demo", name="torn", say=lines.append)
    assert [lines[0], lines[1].partition(";")[0], lines[-1]] == [
        "[1/3] prepare: unchanged, kept",
        "[2/3] train: its notebook is not whole",
        "[3/3] compare: unchanged, kept",
    ]
    assert page.is_file() and not is_unfinished(torn)
    fields = json.loads(torn.read_bytes())
    fields["metadata"]["papermill"]["end_time"] = None  # as papermill leaves it while it works
    torn.write_text(json.dumps(fields))
    assert is_unfinished(torn)


@pytest.mark.parametrize("stages", [["train"], ["prepare"], ["prepare", "train"]])
def test_second_host_only_joins_the_stages_it_is_given(pages, monkeypatch, stages):
    pages("")
    lines = []
    address = {"num_nodes": 2, "node_rank": 1, "master_addr": "10.0.0.1", "master_port": 29500}
    hosts = [f"{stage}.{name}={value}" for stage in stages for name, value in address.items()]
    assert run_recipe("demo", hosts, "twö hosts", say=lines.append) is None
    folder = run_folder("twö hosts")
    # on a busy machine there are lines about the progress between them
    lines = [line for line in lines if not line.startswith(" ")]
    assert lines == [f"host 1: {stage}, with host 0, which keeps the record" for stage in stages]
    names = {"prepare": "1_prepare-host1.ipynb", "train": "2_train-host1.ipynb"}
    expected = [names[stage] for stage in stages]
    assert sorted(path.name for path in folder.glob("*.ipynb")) == expected


def test_uncovered_source_and_base_are_checked_again(pages):
    run, lines, overrides = (
        Run(run_folder("own")),
        [],
        ["prepare.source=/images", "prepare.base=/base"],
    )
    record_all(run, configs("demo", run.folder, overrides))
    pages(WORKS)
    run_recipe("demo", overrides, "own", say=lines.append)
    assert lines[0] == "[1/3] prepare: its source is looked at again, its base is looked at again"
    assert lines[2:] == ["[2/3] train: unchanged, kept", "[3/3] compare: unchanged, kept"]
    assert run.notebook("prepare").is_file() and run.read()["stages"]["prepare"]["status"] == "done"


@pytest.mark.parametrize(
    ("does", "seconds", "status", "error"),
    [
        (DIES, 60, "failed", "DeadKernelError: Kernel died"),
        (SLEEPS, 3, "interrupted", "CellTimeoutError: A cell timed out"),
    ],
)
def test_dead_or_slow_kernel_fails_the_stage(pages, monkeypatch, does, seconds, status, error):
    pages(does)
    monkeypatch.setattr(kernel, "CELL_TIMEOUT", seconds)
    run = Run(run_folder("dead"))
    with pytest.raises(StageError) as failure:
        execute(run, "prepare", configs("demo", run.folder)["prepare"])
    assert str(failure.value).startswith(f"prepare failed: {error}") and failure.value.code == 1
    assert str(run.notebook("prepare")) in str(failure.value) and run.notebook("prepare").is_file()
    assert run.stage_record("prepare")["status"] == status and run.read()["status"] == "failed"


def test_checkout_with_braces_in_its_path_runs(tmp_path, monkeypatch):
    folder = tmp_path / "{} {run} {0}"
    monkeypatch.setattr(paths, "ROOT", folder)
    (folder / "notebooks").mkdir(parents=True)
    write_pages(folder / "notebooks", WORKS)
    run = Run(folder / "outputs" / "demo")
    execute(run, "prepare", configs(str(RECIPES / "demo.yaml"), run.folder)["prepare"])
    assert run.stage_record("prepare")["status"] == "done" and run.notebook("prepare").is_file()
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_ctrl_c_ends_the_command_and_is_recorded(pages, tmp_path):
    # even if the kernel ignores the signal and is killed before it can record anything
    pages(STUBBORN)
    run = Run(run_folder("stopped"))
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        ONEPASS_IN,
        tmp_path,
        "run",
        "demo",
        "--name",
        "stopped",
    ]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    end = time.monotonic() + 300
    while run.stage_record("prepare").get("status") != "running":
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    with pytest.raises(RunError, match="another process"):
        run_recipe("demo", name="stopped", say=lambda _: None)
    with pytest.raises(RunError, match="another process"):
        execute(run, "prepare", configs("demo", run.folder)["prepare"])
    process.send_signal(signal.SIGINT)
    lines = process.communicate(timeout=300)[1]
    assert process.returncode == 130, lines
    assert lines.splitlines() == [
        "onepass: prepare was interrupted; the same command goes on from there",
        f"{run.notebook('prepare')} shows where",
    ]
    assert run.read()["status"] == run.stage_record("prepare")["status"] == "interrupted"
    with run.exclusive():
        pass  # nobody holds the lock of the killed kernel


def test_unwritable_outputs_are_one_sentence(tmp_path, python, pages):
    (tmp_path / "outputs").write_text("a file")
    done = python(ONEPASS_IN, tmp_path, "run", "demo")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.splitlines() == [
        f"onepass: {tmp_path}/outputs/demo cannot be read or written: Not a directory"
    ]


def test_damaged_record_is_one_sentence(tmp_path, python, pages):
    record = Path(tmp_path / "outputs" / "demo" / "run.json")
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"stages": {}})[:-4])
    done = python(ONEPASS_IN, tmp_path, "run", "demo")
    assert (
        done.returncode == 1
        and len(done.stderr.splitlines()) == 1
        and "run.json is damaged; remove it" in done.stderr
    )
