"""A run done again: from a stage on, with other seeds, and in a fresh folder, to be compared."""

import copy
import json
import shutil
import subprocess
import sys

import pytest

from nbs_lib.config import STAGES
from nbs_lib.run.run import Run

pytestmark = pytest.mark.slow


def test_verify_of_an_equal_run_leaves_nothing(project):
    project.onepass("run", "demo", "--name", "equal")
    before = sorted(path.name for path in project.outputs.iterdir())
    result = json.loads(project.onepass("verify", "equal", "--json").stdout)
    assert result["differ"] == [] and result["files"] >= 1
    assert sorted(path.name for path in project.outputs.iterdir()) == before


def test_verify_names_and_keeps_what_differs(project):
    project.onepass("run", "demo", "--name", "chance")
    done = project.onepass("verify", "chance", status=1, LEAVES_train="something else")
    assert "train.txt" in done.stdout + done.stderr
    [result_folder] = project.outputs.glob(".verify-chance-*")
    assert (result_folder / "chance" / "train.txt").read_text() == "something else"
    assert project.onepass("verify", "nothing of that name", status=2).stderr.startswith(
        "onepass: "
    )


def test_run_from_a_stage_reruns_the_later_ones(project):
    project.onepass("run", "demo", "--name", "again")
    started = {
        stage: fields["started"] for stage, fields in project.record("again")["stages"].items()
    }
    unchanged = project.onepass("run", "demo", "--name", "again")
    assert unchanged.stdout.count("unchanged, kept") == 3
    again = project.onepass("run", "demo", "--name", "again", "--from", "train")
    assert again.stdout.count("unchanged, kept") == 1 and again.stdout.count("asked for") == 2
    now = project.record("again")["stages"]
    assert now["prepare"]["started"] == started["prepare"]


def test_seed_option_sets_every_seed(project):
    project.onepass("run", "demo", "--name", "seeded", "--seed", "7", "-p", "compare.seeds=[0, 1]")
    asked = project.record("seeded")["asked"]
    assert (asked["prepare"]["seed"], asked["train"]["seed"], asked["compare"]["seeds"]) == (
        7,
        7,
        [7, 8],
    )


def test_run_from_compare_keeps_the_checkpoints(project):
    # a killed training resumes from them, even if only the comparison is asked for
    folder = project.outputs / "half-way"
    project.onepass(
        "run", "demo", "--name", "half-way", status=1, DOES_train="raise ValueError('killed')"
    )
    (folder / "checkpoints" / "step-5").mkdir(parents=True)
    project.onepass("run", "demo", "--name", "half-way", "--from", "compare")
    assert (folder / "checkpoints" / "step-5").is_dir()
    project.onepass("run", "demo", "--name", "half-way", "--from", "train")
    assert not (folder / "checkpoints").exists()


def test_verify_refuses_a_run_with_a_new_request(project):
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


def test_comparison_with_another_folder_is_repeated(project):
    command = [
        "run",
        "demo",
        "--name",
        "with",
        "-p",
        'compare.contenders=["unguided", "guided", "tuned", "outputs/style"]',
    ]
    project.onepass(*command)
    again = project.onepass(*command)
    assert (
        again.stdout.count("unchanged, kept") == 2
        and "outputs/style is looked at again" in again.stdout
    )


def test_refused_request_is_not_recorded(project):
    """Or it could not be gone on with by `resume`, which would be refused as well."""
    project.onepass("run", "demo", "--name", "refused")
    before = project.record("refused")
    refuses = "class CheckpointError(RuntimeError): pass\nraise CheckpointError('it would be lost')"
    refused = project.onepass(
        "run", "demo", "--name", "refused", "-p", "train.steps=9", status=1, BEFORE_train=refuses
    )
    assert "it would be lost" in refused.stderr
    assert project.record("refused") == before


def test_run_survives_a_closed_stdout(project):
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


def test_copied_project_shows_no_path_of_the_original(project, tmp_path):
    name = "copied"
    shows = (
        "from nbs_lib.files import from_project; print(from_project(run.folder)); "
        "print('run =', config.run)"
    )
    project.onepass("run", "demo", "--name", name, **{f"DOES_{stage}": shows for stage in STAGES})
    moved = copy.copy(project)
    moved.folder = tmp_path / "elsewhere"
    moved.outputs = moved.folder / "outputs"
    # the library has a folder cache/ too, which its hash covers
    shutil.copytree(project.folder, moved.folder, symlinks=True)
    shutil.rmtree(moved.outputs / "cache", ignore_errors=True)
    outputs = [
        moved.onepass(*command).stdout
        for command in (("run", "demo", "--name", name), ("list",), ("show", name))
    ]
    assert all(f"{stage}: unchanged, kept" in outputs[0] for stage in STAGES)
    folder = moved.outputs / name
    cells = [
        json.dumps(json.loads(path.read_bytes())["cells"], ensure_ascii=False)
        for path in folder.glob("*.ipynb")
    ]
    texts = [
        *outputs,
        *cells,
        *(path.read_text() for path in [*folder.glob("*.html"), folder / "run.json"]),
    ]
    assert (
        len(cells) == 3
        and f"outputs/{name}" in cells[0]
        and not [text for text in texts if str(project.folder) in text]
    )
