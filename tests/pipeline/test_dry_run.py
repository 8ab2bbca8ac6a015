"""What a dry run knows of a run before it begins."""

import re

import pytest
from PIL import Image

from nbs_lib.config import STAGES
from nbs_lib.config.validation import ParameterError, as_parameters
from nbs_lib.files import write_atomic
from nbs_lib.pipeline import dry_run as module_ahead
from nbs_lib.pipeline import paths as places
from nbs_lib.pipeline.recipes import configs
from nbs_lib.pipeline.runner import plan
from nbs_lib.run.environment import environment
from nbs_lib.run.run import Run


def ahead(folder, *given: str, recipe: str = "demo") -> dict[str, str]:
    run, stages = Run(folder / "run"), configs(recipe, folder / "run", given)
    return module_ahead.preview_run(run, recipe, stages, plan(run, stages))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("prepare.base=/no/such/base", "base '/no/such/base': there is no such folder"),
        ("prepare.base=no", "base 'no': there is no such folder"),
        (
            "prepare.source=/no/such/source",
            "source '/no/such/source': there is no such folder or file",
        ),
        (
            "prepare.prior_preservation_source=/no/such/prior",
            "source '/no/such/prior': there is no such folder or file",
        ),
        ("train.mixed_precision=fp16", "mixed_precision: given 'fp16', which needs a GPU"),
    ],
)
def test_what_would_fail_is_wrong_input(tmp_path, given, said):
    with pytest.raises(ParameterError, match=re.escape(said)):
        ahead(tmp_path, given)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "given", ["prepare.base=nobody/nothing", "prepare.source=hf:nobody/nothing"]
)
def test_a_hub_that_does_not_answer_is_said(tmp_path, given, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ParameterError, match="nobody/nothing"):
        ahead(tmp_path, given)


def test_what_there_is_and_what_it_takes(tmp_path, monkeypatch):
    for module in (places, module_ahead):
        monkeypatch.setattr(module, "outputs", lambda: tmp_path / "outputs")
    pictures = tmp_path / "pictures"
    for number in range(3):
        write_atomic(pictures / f"{number}.txt", "a picture")
        Image.new("RGB", (64, 64), (number, 0, 0)).save(pictures / f"{number}.png")
    given = [
        f"prepare.source={pictures}",
        "prepare.teacher_cache=data",
        "train.teacher=cached",
        "train.deepspeed=false",
    ]
    record_of_another(tmp_path / "outputs" / "before", given)
    known = ahead(tmp_path / "outputs", *given, "train.steps=800", "train.mixed_precision=fp32")
    assert (
        known["source"] == f"{pictures}, 3 examples"
        and known["processes"] == "2"
        and known["mixed_precision"] == "fp32"
    )
    assert re.match(
        r"\d+ MiB planned for a process of 2, \d+ MiB together; \d+ MiB are free", known["memory"]
    )
    assert (
        known["time of prepare"] == "about 7 s, as in the run before"
        and "time of train" not in known
    )
    assert {path.name for path in (tmp_path / "outputs").iterdir()} == {"before"}


def record_of_another(folder, given: list[str]):
    """A finished run of the recipe, on this machine; its training was another one."""
    known = {"status": "done", "seconds": 7.0, **environment()}
    stages = configs("demo", folder, given)
    told = {stage: known | {"parameters": as_parameters(stages[stage])} for stage in STAGES}
    Run(folder).update(asked={"recipe": "demo"}, status="done", stages=told)


def test_a_training_of_more_steps_takes_longer_by_as_much(tmp_path, monkeypatch):
    for module in (places, module_ahead):
        monkeypatch.setattr(module, "outputs", lambda: tmp_path / "outputs")
    record_of_another(tmp_path / "outputs" / "before", [])
    stages = configs("demo", tmp_path / "run", ["train.steps=800"])
    why = {"prepare": [], "train": ["not done yet"], "compare": ["not done yet"]}
    said = "as in the run before"
    assert module_ahead._times("demo", stages, why) == {
        "time of train": f"about 14 s, {said}",
        "time of compare": f"about 7 s, {said}",
    }
    assert module_ahead._times("cached", stages, why) == {}
    record = Run(tmp_path / "outputs" / "before")
    record.update_stage("train", resumed_from=200)
    record.update_stage("compare", machine={"cpu": "another"})
    assert module_ahead._times("demo", stages, why) == {}
