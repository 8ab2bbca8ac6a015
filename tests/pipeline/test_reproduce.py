"""A run done again: from a stage on, with other seeds, and in a fresh folder, to be compared."""

import copy
import json
import shutil
import subprocess
import sys

from nbs_lib.config import STAGES
from nbs_lib.run.run import Run


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
    assert project.onepass("verify", "nothing of that name", status=2).stderr.startswith(
        "onepass: "
    )


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
    assert (asked["prepare"]["seed"], asked["train"]["seed"], asked["compare"]["seeds"]) == (
        7,
        7,
        [7, 8],
    )


def test_what_is_asked_for_anew_from_a_stage_on_leaves_the_checkpoints_of_an_earlier_one(project):
    """A training that was killed goes on from its last checkpoint, also where only the comparison is to be done anew."""
    folder = project.outputs / "half-way"
    project.onepass(
        "run", "demo", "--name", "half-way", status=1, DOES_train="raise ValueError('killed')"
    )
    (folder / "checkpoints" / "step-5").mkdir(parents=True)
    project.onepass("run", "demo", "--name", "half-way", "--from", "compare")
    assert (folder / "checkpoints" / "step-5").is_dir()
    project.onepass("run", "demo", "--name", "half-way", "--from", "train")
    assert not (folder / "checkpoints").exists()


def test_a_run_that_was_asked_for_something_else_since_is_not_verified(project):
    project.onepass("run", "demo", "--name", "other")
    project.onepass(
        "run",
        "demo",
        "--name",
        "other",
        "-p",
        "train.steps=9",
        status=1,
        BEFORE_train="raise ValueError('no')",
    )
    assert project.record("other")["status"] == "failed"
    project.onepass("verify", "other", status=1)
    Run(project.outputs / "other").update(status="done")
    assert (
        "has been asked for something else" in project.onepass("verify", "other", status=1).stderr
    )


def test_a_comparison_with_what_lies_elsewhere_is_looked_at_again(project):
    given = [
        "run",
        "demo",
        "--name",
        "with",
        "-p",
        'compare.contenders=["unguided", "guided", "tuned", "outputs/style"]',
    ]
    project.onepass(*given)
    again = project.onepass(*given)
    assert (
        again.stdout.count("unchanged, kept") == 2
        and "outputs/style is looked at again" in again.stdout
    )


def test_what_is_refused_is_not_what_a_run_was_asked_for(project):
    """Or it could not be gone on with by `resume`, which would be refused as well."""
    project.onepass("run", "demo", "--name", "refused")
    before = project.record("refused")
    refuses = "class CheckpointError(RuntimeError): pass\nraise CheckpointError('it would be lost')"
    refused = project.onepass(
        "run", "demo", "--name", "refused", "-p", "train.steps=9", status=1, BEFORE_train=refuses
    )
    assert "it would be lost" in refused.stderr
    assert project.record("refused") == before


def test_a_run_goes_on_without_a_reader(project):
    process = project.start("run", "demo", "--name", "unread")
    assert process.stdout.readline().startswith("[1/3] prepare")
    process.stdout.close()
    assert process.wait(300) == 0 and process.stderr.read() == ""
    assert project.record("unread")["status"] == "done"
    closed = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "nbs_lib", "list"],
        cwd=project.folder,
        stderr=subprocess.PIPE,
    )
    assert closed.returncode == 0 and closed.stderr == b""


def test_a_copied_project_shows_no_path_of_where_it_was(project, tmp_path):
    name = "copied"
    shows = "from nbs_lib.files import from_project; print(from_project(run.folder)); print('run =', config.run)"
    project.onepass("run", "demo", "--name", name, **{f"DOES_{stage}": shows for stage in STAGES})
    moved = copy.copy(project)
    moved.folder = tmp_path / "elsewhere"
    moved.outputs = moved.folder / "outputs"
    ignored = shutil.ignore_patterns("cache")
    shutil.copytree(project.folder, moved.folder, symlinks=True, ignore=ignored)
    said = [
        moved.onepass(*each).stdout
        for each in (("run", "demo", "--name", name), ("list",), ("show", name))
    ]
    assert all(f"{stage}: unchanged, kept" in said[0] for stage in STAGES)
    folder = moved.outputs / name
    cells = [
        json.dumps(json.loads(path.read_bytes())["cells"], ensure_ascii=False)
        for path in folder.glob("*.ipynb")
    ]
    texts = [
        *said,
        *cells,
        *(path.read_text() for path in [*folder.glob("*.html"), folder / "run.json"]),
    ]
    assert (
        len(cells) == 3
        and f"outputs/{name}" in cells[0]
        and not [text for text in texts if str(project.folder) in text]
    )
