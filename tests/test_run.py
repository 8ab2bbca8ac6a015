import json

import pytest

from nbs_lib.config import Compare, Prepare, Train
from nbs_lib.run import Run, write_atomic


def finish(run: Run, config, name: str, content: str):
    with run.stage(config) as told:
        (run.folder / name).write_text(content)
        told["outputs"] = [name]


@pytest.fixture
def done(run_folder):
    run = Run(run_folder)
    prepare, train = Prepare(run=str(run_folder)), Train(run=str(run_folder))
    finish(run, prepare, "cache.json", "a")
    finish(run, train, "adapter", "b")
    return run, prepare, train


def test_a_finished_stage_with_unchanged_inputs_is_kept(done):
    run, prepare, train = done
    assert run.changed(prepare) == [] and run.changed(train) == []
    assert run.changed(Compare(run=str(run.folder))) == ["not done yet"]


def test_what_changed_is_named(done):
    run, prepare, train = done
    assert run.changed(Train(run=str(run.folder), steps=7)) == ["parameters"]
    finish(run, Prepare(run=str(run.folder), count=9), "cache.json", "other")
    assert run.changed(train) == ["prepare"]
    (run.folder / "adapter").write_text("damaged")
    assert "adapter" in run.changed(train)


def test_a_failure_is_recorded_with_its_words(run_folder):
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


def test_the_record_says_what_a_result_depends_on(done):
    run, *_ = done
    record = json.loads(run.record.read_text())
    assert record["versions"]["torch"] and record["machine"]["cores"] >= 1
    assert record["stages"]["train"]["parameters"]["steps"] == Train().steps


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a.json"
    write_atomic(path, "old")
    with pytest.raises(TypeError):
        write_atomic(path, 5)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
