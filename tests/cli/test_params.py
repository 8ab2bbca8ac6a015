"""`onepass params`: the parameters of a stage, for people and for scripts."""

import json
import subprocess
import sys

from nbs_lib.config import Train
from nbs_lib.config.fields import describe
from nbs_lib.files import ROOT


def onepass(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "nbs_lib", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_params_prints_every_parameter_with_default_meaning_and_range():
    shown = onepass("params", "train")
    words = " ".join(shown.stdout.split())
    assert shown.returncode == 0, shown.stderr
    for each in describe(Train):
        assert (
            f" {each.name} = " in words and f"{each.meaning} Allowed: {each.allowed}." in words
        ), each.name
    assert max(map(len, shown.stdout.splitlines())) <= 100


def test_params_as_json_is_a_list_of_parameters():
    [first, *_] = json.loads(onepass("params", "playground", "--json").stdout)
    assert (
        set(first) == {"name", "default", "allowed", "meaning", "group", "objectives"}
        and first["name"] == "run"
    )


def test_params_refuses_a_stage_that_does_not_exist():
    refused = onepass("params", "trian")
    assert (
        refused.returncode == 2 and "'trian'" in refused.stderr and "playground" in refused.stderr
    )
