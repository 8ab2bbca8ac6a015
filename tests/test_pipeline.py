import pytest

from nbs_lib.config import ParameterError
from nbs_lib.pipeline import RECIPES, configs, find_recipe, read_recipe, run_folder
from nbs_lib.run import ROOT

ONEPASS = "import sys; sys.argv = ['onepass', *sys.argv[1:]]; from nbs_lib.__main__ import main; main()"


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_is_valid(path, tmp_path):
    configs(path.stem, tmp_path)


def test_overrides_are_typed_by_the_stage(tmp_path):
    stages = configs("demo", tmp_path, ["train.lr=1e-4", "train.steps=7", "compare.seeds=[1, 2]"])
    assert stages["train"].lr == 1e-4 and stages["train"].steps == 7 and stages["compare"].seeds == [1, 2]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["demo", "-p", "train.stepz=5"], "did you mean steps?"),
        (["demo", "-p", "train.steps=many"], "whole number"),
        (["demo", "-p", "steps=5"], "STAGE.NAME=VALUE"),
        (["demo", "-p", "train.run=x"], "--name"),
        (["demo", "--name", "../up"], "--name"),
        (["absent"], "allowed is one of demo"),
    ],
)
def test_a_bad_command_is_one_sentence_and_writes_nothing(python, arguments, said):
    before = sorted((ROOT / "outputs").iterdir())
    done = python(ONEPASS, "run", *arguments)
    assert done.returncode == 2
    assert said in done.stderr and len(done.stderr.strip().splitlines()) == 1 and "Traceback" not in done.stderr
    assert sorted((ROOT / "outputs").iterdir()) == before


def test_a_recipe_that_is_none_is_refused(tmp_path):
    for content in ("- a\n", "bake:\n  a: 1\n", "train: 5\n", "{"):
        path = tmp_path / "r.yaml"
        path.write_text(content)
        with pytest.raises(ParameterError, match="recipe"):
            read_recipe(find_recipe(str(path)))


def test_names_stay_in_outputs():
    assert run_folder("my run").parent == ROOT / "outputs"
    for name in ("..", "a/b", "", ".x", "cache"):
        with pytest.raises(ParameterError):
            run_folder(name)
