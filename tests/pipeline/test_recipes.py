"""The recipes: the demo is what the notebooks do by themselves, and what each of them trains."""

import pytest

from nbs_lib.config import PLACE, STAGES
from nbs_lib.config.validation import as_parameters
from nbs_lib.pipeline.recipes import configs, recipe_names

MEANT = {
    "cached": {"target_modules": "attention", "steps": 400, "captions": 150},
    "consistency": {"target_modules": "all", "steps": 1000, "captions": 150},
    "demo": {"target_modules": "attention", "steps": 400, "captions": 150},
    "demo-long": {"target_modules": "all", "steps": 2000, "captions": 500},
    "diffusiondb": {"target_modules": "feedforward", "steps": 4000, "captions": 0},
    "frontier": {"target_modules": "attention", "steps": 400, "captions": 150},
    "own-images": {"target_modules": "all", "steps": 400, "captions": 100},
    "sd15": {"target_modules": "feedforward", "steps": 4000, "captions": 0},
    "sd21": {"target_modules": "feedforward", "steps": 4000, "captions": 0},
    "sdxl": {"target_modules": "feedforward", "steps": 4000, "captions": 0},
    "trajectories": {"target_modules": "feedforward", "steps": 400, "captions": 150},
    "unseen": {"target_modules": "all", "steps": 300, "captions": 100},
}
"""Of each recipe the parameters that the notebooks' defaults once had otherwise."""


def test_the_notebooks_do_by_themselves_what_the_demo_does(tmp_path):
    for stage, config in configs("demo", tmp_path).items():
        ours, usual = as_parameters(config), as_parameters(STAGES[stage]())
        # the demo names what `auto` takes on a CPU that has it, so that its numbers are the same everywhere
        differ = {name for name in ours if name not in PLACE and ours[name] != usual[name]}
        assert differ == ({"mixed_precision"} if stage == "train" else set()), stage
        assert usual["run"] == "outputs/notebook"


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_means_what_it_meant(name, tmp_path):
    stages = configs(name, tmp_path)
    found = {each: getattr(stages["train"], each) for each in ("target_modules", "steps")}
    assert found | {"captions": stages["compare"].captions} == MEANT[name]
