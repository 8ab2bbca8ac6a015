import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from nbs_lib.config import STAGES, Compare, Prepare, Train
from nbs_lib.config.validation import as_parameters
from nbs_lib.files import ROOT, write_atomic
from nbs_lib.project import EMBEDDED_BASES
from nbs_lib.run import environment, fingerprint
from nbs_lib.run.disk_space import explain_shortage, free_space
from nbs_lib.run.environment import gpus
from nbs_lib.run.locks import is_locked
from nbs_lib.run.out_of_date import outdated_stages
from nbs_lib.run.run import RECIPE_LOCK, Run, RunError

ORPHAN = """
import os, sys, time
from nbs_lib.config import Prepare
from nbs_lib.run.run import Run
config = Prepare(run=sys.argv[1])
with Run(config.run).stage(config):
    rank = os.fork()
    if rank:
        print(rank, flush=True)
    time.sleep(60)
"""
"""A stage whose kernel has forked a rank."""


def finish(run: Run, config, name: str, content: str):
    with run.stage(config) as results:
        (run.folder / name).write_text(content)
        results["outputs"] = [name]


@pytest.fixture
def finished_run(run_folder):
    run = Run(run_folder)
    prepare, train = Prepare(run=str(run_folder)), Train(run=str(run_folder))
    finish(run, prepare, "cache.json", "a")
    finish(run, train, "adapter", "b")
    return run, prepare, train


def test_a_finished_stage_with_unchanged_inputs_is_kept(finished_run):
    run, prepare, train = finished_run
    assert run.changed(prepare) == [] and run.changed(train) == []
    assert run.changed(Compare(run=str(run.folder))) == ["not done yet"]


def test_changed_inputs_and_outputs_are_named(finished_run):
    run, prepare, train = finished_run
    assert run.changed(Train(run=str(run.folder), steps=7)) == ["parameters"]
    finish(run, Prepare(run=str(run.folder), max_examples=9, replace=True), "cache.json", "other")
    assert run.changed(train) == ["prepare"]
    (run.folder / "adapter").write_text("damaged")
    assert "adapter" in run.changed(train)


def test_a_finished_stage_of_other_parameters_is_replaced_only_when_asked_for(finished_run):
    run, prepare, train = finished_run
    before = run.record.read_bytes()
    other = replace(train, steps=30, rank=4)
    with pytest.raises(
        RunError,
        match=r"train.*rank was 16, is 4, steps was 400, is 30.*replace = True",
    ):
        finish(run, other, "adapter", "other")
    assert run.record.read_bytes() == before and (run.folder / "adapter").read_text() == "b"
    finish(run, replace(train, launcher="subprocess"), "adapter", "b")
    finish(run, replace(other, replace=True), "adapter", "other")
    assert run.stage_record("train")["parameters"]["steps"] == 30
    finish(run, other, "adapter", "other")


def test_a_running_command_may_replace_a_stage_with_its_own_parameters(finished_run):
    run, _, train = finished_run
    other = replace(train, steps=30)
    run.update(asked={"recipe": "demo", "train": as_parameters(other)})
    with pytest.raises(RunError, match="replace = True"):
        finish(run, other, "adapter", "other")
    with run.exclusive(RECIPE_LOCK):
        with pytest.raises(RunError, match="replace = True"):
            finish(run, replace(train, steps=31), "adapter", "other")
        finish(run, other, "adapter", "other")


def test_a_new_parameter_counts_as_its_default_in_an_older_run(finished_run):
    run, _, train = finished_run
    parameters = run.stage_record("train")["parameters"]
    del parameters["checkpoints_total_limit"]
    run.update_stage("train", parameters=parameters)
    finish(run, train, "adapter", "b")


def test_the_report_is_marked_while_it_is_out_of_date(finished_run):
    run, _, train = finished_run
    compare = Compare(run=str(run.folder))
    finish(run, compare, "report.html", page := "<html><body><p>90 %</p></body></html>")
    assert run.report.read_text() == page and outdated_stages(run.read()) == {}
    finish(run, replace(train, steps=30, replace=True), "adapter", "other")
    assert 'role="alert"' in run.report.read_text() and outdated_stages(run.read()) == {
        "compare": "train"
    }
    with pytest.raises(ValueError), run.stage(compare):
        raise ValueError
    assert 'role="alert"' in run.report.read_text(), "it still is of the adapter before"
    run.update_stage("compare", status="done", inputs=run.inputs(compare))
    finish(run, replace(train, steps=30), "adapter", "other")
    assert run.report.read_text() == page
    finish(run, Prepare(run=str(run.folder), max_examples=9, replace=True), "cache.json", "other")
    assert outdated_stages(run.read()) == {"train": "prepare", "compare": "prepare"}


def test_a_comparison_depends_on_what_its_file_of_prompts_holds(run_folder, tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("A cat\n")
    run = Run(run_folder)
    plain, config = (Compare(run=str(run_folder), prompts_file=name) for name in ("", str(file)))
    assert "prompts_file" not in run.inputs(plain), "as runs that were recorded before"
    run.update_stage("compare", status="done", inputs=run.inputs(config), outputs={})
    assert run.changed(config) == []
    for change in (lambda: file.write_text("A dog\n"), file.unlink):
        change()
        assert run.changed(config) == ["prompts_file"]


def test_a_failure_is_recorded_with_its_message(run_folder):
    run = Run(run_folder)
    with pytest.raises(ValueError, match="bad luck"), run.stage(Prepare(run=str(run_folder))):
        assert run.read()["status"] == "running"
        raise ValueError("bad luck")
    assert run.stage_record("prepare")["status"] == "failed"
    assert "bad luck" in run.stage_record("prepare")["error"]
    with pytest.raises(FileNotFoundError, match="1_prepare.ipynb"):
        run.require("prepare")


def test_an_interrupt_is_not_a_failure(run_folder):
    run = Run(run_folder)
    with pytest.raises(KeyboardInterrupt), run.stage(Prepare(run=str(run_folder))):
        raise KeyboardInterrupt
    assert run.stage_record("prepare")["status"] == "interrupted"


def test_the_record_holds_versions_and_hardware(finished_run):
    run, *_ = finished_run
    record = json.loads(run.record.read_text())
    assert (
        record["versions"]["torch"]
        and record["machine"]["cores"] >= 1
        and record["machine"]["gpus"] == gpus()
    )
    assert record["stages"]["train"]["parameters"]["steps"] == Train().steps


def test_each_stage_records_its_own_machine_and_commit(finished_run, monkeypatch):
    """As a run that is trained on one machine and compared on another."""
    run, *_ = finished_run
    hardware = run.read()["machine"]
    monkeypatch.setattr(environment, "hardware", lambda: {"cpu": "another"})
    monkeypatch.setattr(environment, "git_commit", lambda: "later")
    finish(run, Compare(run=str(run.folder)), "results", "c")
    record = run.read()
    assert record["machine"] == {"cpu": "another"} and record["commit"] == "later"
    train, compare = record["stages"]["train"], record["stages"]["compare"]
    assert (
        train["machine"] == hardware and train["commit"] != "later" and train["versions"]["numpy"]
    )
    assert compare["machine"] == {"cpu": "another"} and compare["commit"] == "later"


def test_an_adapter_of_an_earlier_cache_is_refused(finished_run):
    run, prepare, train = finished_run
    run.require("train")
    finish(run, Prepare(run=str(run.folder), max_examples=9, replace=True), "cache.json", "other")
    with pytest.raises(RunError, match="prepare .*2_train.ipynb"):
        run.require("train")
    prepare = replace(prepare, replace=True)
    with pytest.raises(ValueError), run.stage(prepare):
        raise ValueError
    with pytest.raises(RunError, match="1_prepare.ipynb"):
        run.require("train")
    finish(run, prepare, "cache.json", "a")
    run.require("train")


@pytest.mark.parametrize(
    "content",
    [b"", b'{"stages": {"prep', b"[]", b'{"stages": 5}', b'{"stages": {"train": 5}}', b"\xff\x00"],
)
def test_a_damaged_record_is_refused(run_folder, content):
    run = Run(run_folder)
    write_atomic(run.record, content)
    with pytest.raises(RunError, match="run.json is damaged"):
        run.read()


def test_a_run_is_locked_until_orphaned_ranks_have_ended(run_folder):
    run, config = Run(run_folder), Prepare(run=str(run_folder))
    command = [sys.executable, "-c", ORPHAN, run_folder]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as kernel:
        rank = int(kernel.stdout.readline())
        before = run.record.read_bytes()
        with pytest.raises(RunError, match="another process"), run.stage(config):
            pass
        kernel.kill()
    with pytest.raises(RunError, match="another process"), run.stage(config):
        pass
    assert run.record.read_bytes() == before
    os.kill(rank, signal.SIGKILL)
    end = time.monotonic() + 10
    while Path(f"/proc/{rank}/cmdline").exists() and time.monotonic() < end:
        time.sleep(0.01)
    finish(run, config, "cache.json", "a")
    assert run.changed(config) == [] and sorted(os.listdir(run_folder)) == [
        "cache.json",
        "run.json",
    ]


def test_a_rank_that_outlives_its_stage_keeps_the_lock(run_folder):
    run, config = Run(run_folder), Prepare(run=str(run_folder))
    with run.stage(config):
        rank = os.fork()
        if not rank:
            time.sleep(60)
            os._exit(0)
    try:
        with pytest.raises(RunError, match="another process"), run.stage(config):
            pass
    finally:
        os.kill(rank, signal.SIGKILL)
        os.waitpid(rank, 0)
    with run.stage(config):
        pass


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A copy of the library and its notebooks that may be changed, in the place of the real one."""
    shutil.copytree(
        ROOT / "nbs_lib", tmp_path / "nbs_lib", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    bases = {name: tmp_path / folder.relative_to(ROOT) for name, folder in EMBEDDED_BASES.items()}
    monkeypatch.setattr(fingerprint, "EMBEDDED_BASES", bases)
    for name in ("NOTEBOOKS", "PACKAGE", "TRAINING"):
        copy = tmp_path / getattr(fingerprint, name).relative_to(ROOT)
        monkeypatch.setattr(fingerprint, name, copy)
    return tmp_path


def changed_by(run: Run, change, base: str = "embedded") -> dict[str, list[str]]:
    """The inputs that differ after a change, by stage."""
    configs = [cls(run=str(run.folder)) for cls in STAGES.values()]
    run.update(stages={"prepare": {"status": "done", "parameters": {"base": base}}})
    configs[0] = Prepare(run=str(run.folder), base=base)
    before = [run.inputs(config) for config in configs]
    change()
    after = [run.inputs(config) for config in configs]
    assert [set(inputs) for inputs in before] == [set(inputs) for inputs in after]
    changed = {}
    for stage, old, new in zip(STAGES, before, after, strict=True):
        names = [name for name in old if old[name] != new[name]]
        if names:
            changed[stage] = names
    return changed


@pytest.mark.parametrize(
    ("file", "changed"),
    [
        ("nbs_lib/picturebook/base/unet/config.json", {"prepare": ["base"], "compare": ["base"]}),
        (
            "nbs_lib/picturebook/base/clip/model.safetensors",
            {"prepare": ["base"], "compare": ["base"]},
        ),
        ("nbs_lib/picturebook/draw.py", {stage: ["code"] for stage in STAGES}),
        ("nbs_lib/models/stable_diffusion_xl.py", {stage: ["code"] for stage in STAGES}),
        ("nbs_lib/files.py", {stage: ["code"] for stage in STAGES}),
        ("nbs_lib/flow.py", {stage: ["code"] for stage in STAGES}),
        ("nbs_lib/compare/report/report.html.j2", {"compare": ["code"]}),
        ("nbs_lib/compare/report/report.css", {"compare": ["code"]}),
        ("nbs_lib/compare/report/report.js", {"compare": ["code"]}),
        ("nbs_lib/train/loop.py", {"train": ["code"]}),
        ("nbs_lib/launch/launcher.py", {"train": ["code"]}),
        ("nbs_lib/picturebook/training/fit.py", {}),
        ("nbs_lib/picturebook/__pycache__/draw.pyc", {}),
        ("nbs_lib/train/.loop.py.swp", {}),
        ("nbs_lib/pipeline/runner.py", {}),
    ],
)
def test_a_changed_file_changes_the_inputs_of_the_stages_that_depend_on_it(
    project, run_folder, file, changed
):
    def change():
        (project / file).parent.mkdir(exist_ok=True)
        with (project / file).open("a") as opened:
            opened.write("\n")

    assert changed_by(Run(run_folder), change) == changed


def test_a_run_on_another_base_does_not_depend_on_the_shipped_one(project, run_folder):
    def change():
        (project / "nbs_lib/picturebook/base/unet/config.json").write_text("{}")

    assert changed_by(Run(run_folder), change, "/some/folder") == {}


def test_a_notebook_s_code_is_an_input_but_not_its_outputs_or_parameters(project, run_folder):
    path = project / "notebooks" / "2_train.ipynb"

    def change(index: int, **parts):
        notebook = json.loads(path.read_text())
        code_cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        code_cells[index].update(parts)
        notebook["metadata"]["widgets"] = {}
        path.write_text(json.dumps(notebook))

    run = Run(run_folder)
    assert (
        changed_by(
            run,
            lambda: change(3, outputs=[{"output_type": "stream", "name": "stdout", "text": "x"}]),
        )
        == {}
    )
    assert changed_by(run, lambda: change(0, source=["steps: int = 7  # optimizer steps"])) == {}
    assert changed_by(run, lambda: change(3, source=["trained = train(config)\n", "x"])) == {
        "train": ["notebook"]
    }
    path.write_text("{")
    with pytest.raises(RunError, match="2_train.ipynb"):
        run.inputs(Train(run=str(run_folder)))


def test_another_version_of_a_package_is_a_changed_input(run_folder, monkeypatch):
    def change():
        monkeypatch.setattr(
            environment, "version", lambda package: "0.0" if package == "pillow" else "1"
        )

    assert changed_by(Run(run_folder), change) == {stage: ["versions"] for stage in STAGES}


def test_the_lock_of_another_machine_s_process_is_tested_with_flock(tmp_path):
    """A killed container comes back under another name, and its lock's file is still there."""
    path = tmp_path / ".stage.lock"
    owner = {
        "pid": 1,
        "begun": "1",
        "parent": 0,
        "host": "a-pod-of-before",
        "since": "then",
        "what": "onepass run demo",
    }
    path.write_text(json.dumps(owner))
    assert not is_locked(path)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert is_locked(path)
    assert not is_locked(path) and not is_locked(tmp_path / "none")


def test_a_disk_without_inodes_is_reported_as_such(mount, tmp_path):
    disk = mount(tmp_path / "disk", "size=4m,nr_inodes=16")
    run = Run(disk / "run")
    with pytest.raises(OSError), run.stage(Prepare(run=str(run.folder))):
        for number in range(20):
            (run.folder / str(number)).touch()
    assert "no inode is free" in run.stage_record("prepare")["error"]
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(OSError):
        for number in range(20):
            (disk / str(number)).touch()
    assert "no inode is free" in free_space(
        disk / "not" / "there"
    ) and "no inode is free" in explain_shortage(full, disk)
    (run.folder / "1").unlink()
    assert free_space(disk).endswith("MiB are free") and explain_shortage(full, disk) == ""
