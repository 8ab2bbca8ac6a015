"""YAML 1.2: the meaning of scalars, and equal round trips, also through a reader of YAML 1.1."""

import math

import pytest
import yaml

from nbs_lib.config import STAGES, Compare
from nbs_lib.config.validation import ParameterError, as_parameters
from nbs_lib.config.yaml12 import dump, load
from nbs_lib.pipeline.recipes import apply_overrides, configs, read_yaml
from nbs_lib.pipeline.sweep.jobs import SweepJob

VALUES = {
    "010": 10, "-07": -7, "0o10": 8, "0x1F": 31, "1_000": "1_000", "1:30": "1:30",
    "190:20:30": "190:20:30", "0b11": "0b11", "yes": "yes", "No": "No", "on": "on", "off": "off",
    "y": "y", "True": True, "false": False, "tRUE": "tRUE", "1e-4": 1e-4, "1E3": 1000.0, ".5": 0.5,
    "1.": 1.0, "-.inf": -math.inf, "1.5:3": "1.5:3", "2020-13-01": "2020-13-01",
    "2020-01-01": "2020-01-01", "~": None, "null": None, "": None, "=": "=", "'010'": "010",
    "0o9": "0o9", "+12": 12,
}  # fmt: skip
"""By YAML 1.2.2, section 10.3.2."""


@pytest.mark.parametrize("text", VALUES)
def test_scalars_are_read_as_yaml_1_2_has_them(text):
    found = load(f"a: {text}\n")["a"]
    assert found == VALUES[text] and type(found) is type(VALUES[text])


def test_a_recipe_and_an_option_are_read_so(tmp_path):
    (tmp_path / "r.yaml").write_text("train:\n  steps: 010\n  learning_rate: 1e-4\n  rank: 0o10\n")
    assert (
        (train := configs(str(tmp_path / "r.yaml"), tmp_path)["train"]).steps == 10
        and train.learning_rate == 1e-4
        and train.rank == 8
    )
    assert apply_overrides(["compare.seeds=[010, 0x10]", "compare.prompts=[1:30, yes, no]"])[
        "compare"
    ] == {
        "seeds": [10, 16],
        "prompts": ["1:30", "yes", "no"],
    }
    for wrong in ("train.steps=1:30", "train.deepspeed=yes", "train.learning_rate=2020-01-01"):
        with pytest.raises(ParameterError, match="allowed is"):
            configs("demo", tmp_path, [wrong])


@pytest.mark.parametrize(
    "text",
    [
        "!!bool yes",
        "!!int 1:30",
        "!!timestamp x",
        "!!float x",
        "!!set {a}",
        "!!python/name:os.system ''",
        "!!binary é",
    ],
)
def test_a_tag_whose_value_is_not_of_it_is_refused(text):
    with pytest.raises(ParameterError, match="not good YAML"):
        read_yaml(f"a: {text}", "here")


@pytest.mark.parametrize(
    "value",
    [
        *filter(lambda each: isinstance(each, str), VALUES.values()),
        *VALUES,
        1e-5,
        1e300,
        10,
        "a\nb",
    ],
)
def test_what_is_written_comes_back_equal(value):
    for text in (
        dump({"a": [value, {"b": value}]}),
        dump({"a": [value, {"b": value}]}, inline=True),
    ):
        assert load(text) == yaml.safe_load(text) == {"a": [value, {"b": value}]}
    assert load(dump(value, inline=True)) == value


def test_every_stage_s_defaults_come_back_equal():
    told = {stage: as_parameters(cls()) for stage, cls in STAGES.items()}
    assert load(dump(told)) == told


def test_a_member_s_values_arrive_as_they_are():
    prompts = ["\U0001f600 smiles", "1e-4", "010", "a\u2028b\x7f", "it's"]
    options = SweepJob(
        "m", {"compare.prompts": prompts, "train.learning_rate": 1e-05}, {}
    ).options()
    arrived = apply_overrides([options[3], options[5]])
    assert arrived["compare"] == {"prompts": prompts} and arrived["train"] == {
        "learning_rate": 1e-05
    }
    assert Compare(prompts=arrived["compare"]["prompts"]).prompts == prompts
