"""One stage of a recipe as a command: what it needs, what it refuses, what it leaves."""

import pytest

from nbs_lib.config import STAGES

pytestmark = pytest.mark.slow


def test_the_stages_one_by_one_are_a_whole_run(project):
    name = ["--name", "by stages"]
    refused = project.onepass("train", "demo", *name, status=1)
    assert refused.stderr == (
        "onepass: by stages: its prepare stage is not done, and train needs it; `onepass prepare "
        "demo --name by stages` does it, `onepass run demo --name by stages` all stages\n"
    )
    assert not (project.outputs / "by stages").exists()
    prepared = project.onepass("prepare", "demo", *name, "-p", "prepare.max_examples=7")
    assert "[1/3] prepare: not done yet" in prepared.stdout and "[2/3]" not in prepared.stdout
    assert "prepare came to its end" in prepared.stdout
    assert prepared.stdout.endswith("-m nbs_lib train demo --name by stages\n")
    assert project.record("by stages")["status"] == "prepared"
    trained = project.onepass("train", "demo", *name, "-p", "train.rank=2")
    assert "[1/3]" not in trained.stdout and project.record("by stages")["status"] == "trained"
    assert project.onepass("train", "demo", *name, "-p", "train.rank=2").stdout.startswith(
        "[2/3] train: unchanged, kept"
    )
    compared = project.onepass("compare", "demo", *name)
    assert "open: outputs/by stages" in compared.stdout and "playground.ipynb" in compared.stdout
    record = project.record("by stages")
    assert record["status"] == "done"
    parameters = [record["asked"][stage] for stage in STAGES]
    assert (parameters[0]["max_examples"], parameters[1]["rank"]) == (7, 2)
    # what was asked for stage by stage is what the whole run is asked for
    assert project.onepass("resume", "by stages").stdout.count("unchanged, kept") == 3
    # another adapter: the comparison is of the earlier one
    project.onepass("train", "demo", *name, "-p", "train.rank=4")
    assert project.record("by stages")["status"] == "trained"


def test_parameters_of_another_stage_are_refused(project):
    refused = project.onepass("train", "demo", "-p", "prepare.max_examples=7", status=2)
    assert refused.stderr == (
        "onepass: -p prepare.max_examples: given to `onepass train`; allowed are parameters of "
        "train, and `onepass prepare` takes this one\n"
    )


def test_a_finished_run_says_what_to_open_and_to_try(project):
    done = project.onepass("run", "demo", "--name", "closing")
    command = done.stdout.split("try:  ")[1].split(" lab")[0]
    assert command.endswith("-m nbs_lib") or command == "onepass"
    lines = done.stdout.splitlines()[-4:]
    assert lines[0].startswith("open: outputs/closing/3_compare.html in a browser")
    assert f"{command} run demo -p train.rank=4 --name closing-rank-4" in lines[2]
    assert f"{command} diff closing closing-rank-4" in lines[2]
    assert "run own-images -p prepare.source=FOLDER" in lines[3]
    assert "open:" not in project.onepass("run", "demo", "--name", "closing", "--json").stdout
