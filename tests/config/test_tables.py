"""Parameters shown to people: the table of a config."""

import re

import pytest

from nbs_lib.config import NOTEBOOKS, Compare, Prepare, Train
from nbs_lib.config.fields import Parameter, describe
from nbs_lib.config.tables import notebook_line
from nbs_lib.train.objectives import OBJECTIVES

by_class = pytest.mark.parametrize("cls", NOTEBOOKS.values())


@by_class
def test_every_parameter_has_a_meaning_and_its_allowed_values(cls):
    for parameter in describe(cls):
        assert parameter.group and parameter.allowed, parameter.name
        assert parameter.meaning.endswith(".") and parameter.meaning[0].isupper(), parameter.name


def test_the_allowed_values_come_from_the_type_and_its_limits():
    allowed = {parameter.name: parameter.allowed for parameter in describe(Train)}
    assert allowed["rank"] == "a whole number from 1 to 1,024"
    assert allowed["lora_dropout"] == "a number from 0 to 0.9"
    assert allowed["method"] == "one of lora, rslora, dora, full"
    assert allowed["deepspeed"] == "true or false"


def test_the_objectives_that_use_a_parameter_are_objectives():
    objectives = {parameter.name: parameter.objectives for parameter in describe(Train)}
    assert {name for names in objectives.values() for name in names} == set(OBJECTIVES)
    assert objectives["huber_c"] == ("consistency",) and objectives["rank"] == ()


def test_a_config_shows_itself_as_a_table_with_other_values_in_bold():
    html = Train(rank=4, target_modules="all")._repr_html_()
    bold = re.findall(r"<b><code>(.*?)</code></b>", html)
    assert bold == ["rank", "4", "target_modules", "&quot;all&quot;"]
    assert all(f"<code>{parameter.name}</code>" in html for parameter in describe(Train))
    first, _, folded = html.partition("<details>")
    assert re.findall(r"<code>(.*?)</code>", first) == bold, "the others are folded"
    assert folded.count("<tr>") > len(describe(Train))
    assert html.index("What is learned") < html.index("LoRA</th>") < html.index("Checkpoints")


def test_a_default_that_depends_on_others_is_not_bold():
    assert "All parameters have their defaults" in Train()._repr_html_()
    assert "<b>" not in Train()._repr_html_() and "<b>" not in Compare()._repr_html_()


def test_a_value_cannot_leave_its_cell_of_the_table():
    assert "<script>" not in Prepare(template="<script>{}")._repr_html_()


def test_a_config_prints_itself_as_text_with_a_star_at_other_values():
    lines = str(Train(rank=4)).splitlines()
    assert [line.split()[:3] for line in lines if line.startswith("*")] == [["*", "rank", "4"]]
    assert len([line for line in lines if line.startswith((" ", "*"))]) == len(describe(Train))


@pytest.mark.parametrize(("name", "meaning"), [("a" * 90, "Long."), ("x", "Written as a = b.")])
def test_a_line_that_papermill_would_not_read_is_refused(name, meaning):
    with pytest.raises(ValueError, match="no line for a notebook"):
        notebook_line(Parameter(name, 1, "", meaning, ""))
