"""Dry runs: base, source, memory and time of a run before it begins."""

import re

import pytest
from PIL import Image

from nbs_lib.config import STAGES
from nbs_lib.config.validation import ParameterError, as_parameters
from nbs_lib.files import write_atomic
from nbs_lib.pipeline import dry_run, paths
from nbs_lib.pipeline.plan import plan
from nbs_lib.pipeline.recipes import configs
from nbs_lib.run.environment import environment
from nbs_lib.run.run import Run


def preview(folder, *overrides: str, recipe: str = "demo") -> dict[str, str]:
    run, stages = Run(folder / "run"), configs(recipe, folder / "run", overrides)
    return dry_run.preview_run(run, recipe, stages, plan(run, stages))


@pytest.mark.parametrize(
    ("override", "message"),
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
        (
            "prepare.captioner=/no/such/model",
            "captioner '/no/such/model': there is no such folder",
        ),
        ("train.mixed_precision=fp16", "mixed_precision: given 'fp16', which needs a GPU"),
    ],
)
def test_missing_base_or_source_is_refused(tmp_path, override, message):
    with pytest.raises(ParameterError, match=re.escape(message)):
        preview(tmp_path, override)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "override", ["prepare.base=nobody/nothing", "prepare.source=hf:nobody/nothing"]
)
def test_hub_that_does_not_answer_is_named(tmp_path, override, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ParameterError, match="nobody/nothing"):
        preview(tmp_path, override)


def test_preview_of_source_processes_memory_and_time(tmp_path, monkeypatch):
    for module in (paths, dry_run):
        monkeypatch.setattr(module, "outputs", lambda: tmp_path / "outputs")
    pictures = tmp_path / "pictures"
    for number in range(3):
        write_atomic(pictures / f"{number}.txt", "a picture")
        Image.new("RGB", (64, 64), (number, 0, 0)).save(pictures / f"{number}.png")
    overrides = [
        f"prepare.source={pictures}",
        "prepare.teacher_cache=data",
        "train.teacher=cached",
        "train.deepspeed=false",
    ]
    write_finished_run(tmp_path / "outputs" / "before", overrides)
    result = preview(
        tmp_path / "outputs", *overrides, "train.steps=800", "train.mixed_precision=fp32"
    )
    assert (
        result["source"] == f"{pictures}, 3 examples"
        and result["processes"] == "2"
        and result["mixed_precision"] == "fp32"
    )
    assert re.match(
        r"\d+ MiB planned for a process of 2, \d+ MiB together; \d+ MiB are free", result["memory"]
    )
    assert (
        result["time of prepare"] == "about 7 s, as in the run before"
        and "time of train" not in result
    )
    assert {path.name for path in (tmp_path / "outputs").iterdir()} == {"before"}


def write_finished_run(folder, overrides: list[str]):
    """A finished run of the recipe, on this machine; its training was another one."""
    fields = {"status": "done", "seconds": 7.0, **environment()}
    stages = configs("demo", folder, overrides)
    records = {stage: fields | {"parameters": as_parameters(stages[stage])} for stage in STAGES}
    Run(folder).update(asked={"recipe": "demo"}, status="done", stages=records)


def test_time_is_proportional_to_the_steps(tmp_path, monkeypatch):
    for module in (paths, dry_run):
        monkeypatch.setattr(module, "outputs", lambda: tmp_path / "outputs")
    write_finished_run(tmp_path / "outputs" / "before", [])
    stages = configs("demo", tmp_path / "run", ["train.steps=800"])
    why = {"prepare": [], "train": ["not done yet"], "compare": ["not done yet"]}
    source = "as in the run before"
    assert dry_run.estimate_times("demo", stages, why) == {
        "time of train": f"about 14 s, {source}",
        "time of compare": f"about 7 s, {source}",
    }
    assert dry_run.estimate_times("cached", stages, why) == {}
    record = Run(tmp_path / "outputs" / "before")
    record.update_stage("train", resumed_from=200)
    record.update_stage("compare", machine={"cpu": "another"})
    assert dry_run.estimate_times("demo", stages, why) == {}
