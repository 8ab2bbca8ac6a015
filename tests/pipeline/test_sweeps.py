"""Sweeps: what is swept, under which names, what they come to."""

import json
import re

import pytest

from nbs_lib.parameters import ParameterError
from nbs_lib.pipeline.sweeps import axes, member_name, planned, split_values


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("4,8,16", ["4", "8", "16"]),
        ("[0, 1],[2]", ["[0, 1]", "[2]"]),
        ('["a, b"]', ['["a, b"]']),
        ("'a, b',c", ["'a, b'", "c"]),
        ("", [""]),
        ("a,,b", ["a", "", "b"]),
    ],
)
def test_values_stand_between_commas(text, parts):
    assert split_values(text) == parts


def test_what_is_swept_and_what_is_the_same_for_all():
    fixed, swept = axes(["train.rank=4,8", "train.seed=0..2", "train.steps=5", "compare.seeds=[0, 1]"])
    assert swept == {"train.rank": [4, 8], "train.seed": [0, 1, 2]}
    assert fixed == {"train.steps": 5, "compare.seeds": [0, 1]}
    assert axes({"train.rank": [4, 8], "train.steps": 5, "compare.seeds": [0, 1]})[1] == {"train.rank": [4, 8]}
    assert axes({"compare.seeds": [[0], [1]]})[1] == {"compare.seeds": [[0], [1]]}


def test_values_mean_what_people_mean_and_names_are_one_for_equal_values():
    _, swept, members = planned("demo", ["train.lr=1e-4,0.001", "train.deepspeed=true,false"], None, None)
    assert swept == {"train.lr": [0.0001, 0.001], "train.deepspeed": [True, False]}
    assert members[0].name == "demo-sweep.lr-0.0001.deepspeed-true"
    with pytest.raises(ParameterError, match="given twice"):
        planned("demo", ["train.lr=1e-4,0.0001"], None, None)


def test_names_hold_any_value():
    one, two = (member_name("s", {"prepare.source": source}) for source in ("/my/images", "/my images"))
    assert one != two and one.startswith("s.source-my_images-") and "/" not in one
    assert member_name("s", {"train.seed": 1, "prepare.seed": 2}) == "s.train-seed-1.prepare-seed-2"


def test_a_sweep_names_its_best_and_outlives_a_member(project):
    """A second time, it does only what is missing, and compares by another number."""
    fails = "if config.rank == 4: raise ValueError('no such rank')"
    command = ["sweep", "demo", "--name", "swept", "-p", "train.rank=4,8", "-p", "train.seed=0..1", "--jobs", "2"]
    done = project.onepass(*command, status=1, DOES_train=fails)
    assert "2 of 4 runs are not done: swept.rank-4.seed-0, swept.rank-4.seed-1" in done.stderr.replace("\n", " ")
    assert "failed: train failed: ValueError: no such rank" in done.stdout
    assert "best by loss: swept.rank-8.seed-0" in done.stdout
    before = {path: path.stat().st_mtime_ns for path in project.outputs.glob("swept.rank-8*/train.txt")}
    told = json.loads(project.onepass(*command, "--json").stdout)
    assert told["best"] == "swept.rank-4.seed-0" and told["failed"] == [] and told["swept"] == {
        "train.rank": [4, 8], "train.seed": [0, 1]
    }  # fmt: skip
    assert before == {path: path.stat().st_mtime_ns for path in before} and len(before) == 2
    kept = json.loads((project.outputs / "swept" / "sweep.json").read_text())
    assert [member["loss"] for member in kept["members"]] == [0.04, 0.04, 0.08, 0.08]
    again = project.onepass(*command, "--metric", "train.seen")
    assert "best by train.seen: swept.rank-4.seed-0" in again.stdout
    assert (project.outputs / "swept" / "sweep.png").read_bytes().startswith(b"\x89PNG")
    page = (project.outputs / "swept" / "sweep.html").read_text()
    assert "swept.rank-4.seed-0" in page and "data:image/png;base64," in page
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page) and "default-src 'none'" in page
    assert project.onepass("rm", "swept*").stdout.count("removed: ") == 5
