"""A run done again: from a stage on, with other seeds, and in a fresh folder, to be compared."""

import json


def test_a_run_done_again_in_a_fresh_folder_is_equal_and_leaves_nothing(project):
    project.onepass("run", "demo", "--name", "equal")
    before = sorted(path.name for path in project.outputs.iterdir())
    told = json.loads(project.onepass("verify", "equal", "--json").stdout)
    assert told["differ"] == [] and told["files"] >= 1
    assert sorted(path.name for path in project.outputs.iterdir()) == before


def test_what_comes_out_otherwise_is_named_and_kept_to_be_looked_at(project):
    project.onepass("run", "demo", "--name", "chance")
    done = project.onepass("verify", "chance", status=1, LEAVES_train="something else")
    assert "train.txt" in done.stdout + done.stderr
    [kept] = project.outputs.glob(".verify-chance-*")
    assert (kept / "chance" / "train.txt").read_text() == "something else"
    assert project.onepass("verify", "nothing of that name", status=2).stderr.startswith("onepass: ")


def test_a_run_begins_again_from_the_stage_that_is_asked_for(project):
    project.onepass("run", "demo", "--name", "again")
    started = {stage: told["started"] for stage, told in project.record("again")["stages"].items()}
    kept = project.onepass("run", "demo", "--name", "again")
    assert kept.stdout.count("unchanged, kept") == 3
    again = project.onepass("run", "demo", "--name", "again", "--from", "train")
    assert again.stdout.count("unchanged, kept") == 1 and again.stdout.count("asked for") == 2
    now = project.record("again")["stages"]
    assert now["prepare"]["started"] == started["prepare"]


def test_one_seed_sets_them_all(project):
    project.onepass("run", "demo", "--name", "seeded", "--seed", "7", "-p", "compare.seeds=[0, 1]")
    asked = project.record("seeded")["asked"]
    assert (asked["prepare"]["seed"], asked["train"]["seed"], asked["compare"]["seeds"]) == (7, 7, [7, 8])
