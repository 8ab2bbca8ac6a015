"""Sweeps: what is swept, under which names, what they come to."""

import json
import re

import pytest

from nbs_lib.config.validation import ParameterError
from nbs_lib.pipeline import paths
from nbs_lib.pipeline.sweep.jobs import SweepJob, run_jobs
from nbs_lib.pipeline.sweep.sweep import member_name, plan_sweep, write_sweep
from nbs_lib.pipeline.sweep.values import parse_values, split_parameters
from nbs_lib.run.run import Run


@pytest.mark.parametrize(
    ("override", "values"),
    [
        ("train.rank=4,8,16", [4, 8, 16]),
        ("train.rank=[4, 8, 16]", [4, 8, 16]),
        ("train.rank=4", [4]),
        ("train.rank= 4 , 8 ", [4, 8]),
        ("train.rank=", [""]),
        ("train.seed=-1..1", [-1, 0, 1]),
        ("train.deepspeed=true,false", [True, False]),
        ("compare.seeds=[0, 1],[2]", [[0, 1], [2]]),
        ("compare.seeds=[0, 1]", [[0, 1]]),
        ("compare.seeds=[[0, 1], [2]],[]", [[[0, 1], [2]], []]),
        ("compare.seeds=[[0, 1], [2]]", [[0, 1], [2]]),
        ('compare.prompts=["a, b"]', [["a, b"]]),
        ("prepare.negative_prompt='a, b',c", ["a, b", "c"]),
        ("prepare.negative_prompt=\"a, b\", 'c'", ["a, b", "c"]),
        ("prepare.negative_prompt=a,,b", ["a", "", "b"]),
        ("prepare.negative_prompt=it's bad,it's good", ["it's bad", "it's good"]),
        ("prepare.negative_prompt=it's bad", ["it's bad"]),
        ("prepare.negative_prompt='quoted'", ["'quoted'"]),
        ("prepare.negative_prompt=a\nb,c", ["a\nb", "c"]),
        ("prepare.negative_prompt=", [""]),
    ],
)
def test_values_of_an_override(override, values):
    assert parse_values(override) == (override.partition("=")[0], values)


def test_parameters_are_split_into_fixed_and_swept():
    fixed, swept = split_parameters(
        ["train.rank=4,8", "train.seed=0..2", "train.steps=5", "compare.seeds=[0, 1]"]
    )
    assert swept == {"train.rank": [4, 8], "train.seed": [0, 1, 2]}
    assert fixed == {"train.steps": 5, "compare.seeds": [0, 1]}
    assert split_parameters({"train.rank": [4, 8], "train.steps": 5, "compare.seeds": [0, 1]})[
        1
    ] == {"train.rank": [4, 8]}
    assert split_parameters({"compare.seeds": [[0], [1]]})[1] == {"compare.seeds": [[0], [1]]}
    assert split_parameters({"compare.dial_at": [], "train.rank": [4, 8]}) == (
        {"compare.dial_at": []},
        {"train.rank": [4, 8]},
    )
    with pytest.raises(ParameterError, match="train.rank is given twice"):
        split_parameters(["train.rank=4,8", "train.rank=16"])


def test_texts_are_not_parsed_except_quotes_around_one_of_several():
    assert split_parameters(["prepare.negative_prompt=it's bad", "train.rank=4,8"])[0] == {
        "prepare.negative_prompt": "it's bad"
    }
    assert split_parameters(["prepare.source=/data/John's [a,/data/b"])[1] == {
        "prepare.source": ["/data/John's [a", "/data/b"]
    }
    assert split_parameters(["prepare.negative_prompt='blurry, ugly',plain"])[1] == {
        "prepare.negative_prompt": ["blurry, ugly", "plain"]
    }


def test_equal_values_have_one_name():
    _, swept, members = plan_sweep(
        "demo", ["train.learning_rate=1e-4,0.001", "train.deepspeed=true,false"], None
    )
    assert swept == {"train.learning_rate": [0.0001, 0.001], "train.deepspeed": [True, False]}
    assert members[0].name == "demo-sweep.learning_rate-0.0001.deepspeed-true"
    with pytest.raises(ParameterError, match="given twice"):
        plan_sweep("demo", ["train.learning_rate=1e-4,0.0001"], None)


def test_member_names_hold_any_value():
    one, two = (
        member_name("s", {"prepare.source": source}) for source in ("/my/images", "/my images")
    )
    assert one != two and one.startswith("s.source-my_images-") and "/" not in one
    assert member_name("s", {"train.seed": 1, "prepare.seed": 2}) == "s.train-seed-1.prepare-seed-2"


@pytest.mark.slow
def test_sweep_outlives_a_failed_member_and_names_the_best(project):
    """A second time, it does only what is missing, and compares by another number."""
    fails = "if config.rank == 4: raise ValueError('no such rank')"
    command = [
        "sweep",
        "demo",
        "--name",
        "swept",
        "-p",
        "train.rank=4,8",
        "-p",
        "train.seed=0..1",
        "--jobs",
        "2",
    ]
    finished = project.onepass(*command, status=1, DOES_train=fails)
    assert (
        "2 of 4 runs are not done: swept.rank-4.seed-0, swept.rank-4.seed-1"
        in finished.stderr.replace("\n", " ")
    )
    assert "failed: train failed: ValueError: no such rank" in finished.stdout
    assert "best by loss: swept.rank-8.seed-0" in finished.stdout
    before = {
        path: path.stat().st_mtime_ns for path in project.outputs.glob("swept.rank-8*/train.txt")
    }
    result = json.loads(project.onepass(*command, "--json").stdout)
    assert result["best"] == "swept.rank-4.seed-0" and result["failed"] == []
    assert result["swept"] == {"train.rank": [4, 8], "train.seed": [0, 1]}
    assert before == {path: path.stat().st_mtime_ns for path in before} and len(before) == 2
    summary = json.loads((project.outputs / "swept" / "sweep.json").read_text())
    assert [member["loss"] for member in summary["members"]] == [0.04, 0.04, 0.08, 0.08]
    wrong = project.onepass(*command, "--metric", "train.sein", status=2)
    assert "did you mean train.seen?" in wrong.stderr and "4/4] swept.rank-8.seed-" in wrong.stdout
    assert json.loads((project.outputs / "swept" / "sweep.json").read_text())["metric"] == "loss"
    again = project.onepass(*command, "--metric", "train.seen")
    assert "best by train.seen: swept.rank-4.seed-0" in again.stdout
    assert (project.outputs / "swept" / "sweep.png").read_bytes().startswith(b"\x89PNG")
    page = (project.outputs / "swept" / "sweep.html").read_text()
    assert "swept.rank-4.seed-0" in page and "data:image/png;base64," in page
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page) and "default-src 'none'" in page
    assert project.onepass("rm", "swept*").stdout.count("removed: ") == 5


@pytest.mark.slow
def test_failed_member_does_not_count_as_its_earlier_success(project):
    command = ["sweep", "demo", "--name", "stale", "-p", "train.rank=4,8", "--jobs", "2"]
    project.onepass(*command)
    finished = project.onepass(
        *command, "-p", "train.steps=9", status=1, BEFORE_train="raise ValueError('does not fit')"
    )
    assert (
        "2 of 2 runs are not done" in finished.stderr
        and "best by loss: none is done" in finished.stdout
    )
    assert {project.record(f"stale.rank-{rank}")["status"] for rank in (4, 8)} == {"failed"}
    assert project.onepass(*command).stdout.count("done, loss") == 2


def test_member_may_print_more_than_a_pipe_holds(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONVERBOSE", "1")
    lines = []
    failed = run_jobs(tmp_path / "absent.yaml", [SweepJob("talkative", {}, {})], 1, lines.append)
    assert (
        failed == {"talkative"}
        and "talkative: failed: recipe" in lines[-1]
        and "absent.yaml" in lines[-1]
    )


def test_largest_clip_score_is_the_best(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    members = [
        SweepJob(f"s.rank-{rank}", {"train.rank": rank}, {"train.rank": rank}) for rank in (4, 8)
    ]
    for member in members:
        score = {
            "contenders": {"tuned": {"clip_score": {"value": 20.0 + member.swept["train.rank"]}}}
        }
        stages = {"compare": {"status": "done", "seconds": 1.0, **score}}
        Run(tmp_path / "outputs" / member.name).update(status="done", stages=stages)
    result = write_sweep(
        tmp_path / "outputs" / "s",
        "demo",
        {"train.rank": [4, 8]},
        members,
        set(),
        "clip_score.value",
    )
    assert (
        result.best == "s.rank-8" and result.metric == "compare.contenders.tuned.clip_score.value"
    )
