"""The recipes: the demo is what the notebooks do by themselves, and what each of them trains."""

import pytest

from nbs_lib.config import PLACE, STAGES
from nbs_lib.config.validation import as_parameters
from nbs_lib.pipeline.recipes import configs, recipe_names

# the parameters that decide each recipe's time and layers
EXPECTED = {
    "cached": {"target_modules": "attention", "steps": 400, "captions": 150},
    "consistency": {"target_modules": "all", "steps": 1000, "captions": 150},
    "demo": {"target_modules": "all", "steps": 400, "captions": 150},
    "demo-long": {"target_modules": "all", "steps": 2000, "captions": 500},
    "diffusiondb": {"target_modules": "feedforward", "steps": 4000, "captions": 0},
    "few-steps": {"target_modules": "all", "steps": 1000, "captions": 150},
    "four-steps": {"target_modules": "all", "steps": 180, "captions": 100},
    "frontier": {"target_modules": "all", "steps": 400, "captions": 150},
    "own-images": {"target_modules": "all", "steps": 400, "captions": 100},
    "sd15": {"target_modules": "feedforward", "steps": 4000, "captions": 0},
    "sd21": {"target_modules": "feedforward", "steps": 4000, "captions": 0},
    "sd35-large": {"target_modules": "feedforward", "steps": 4000, "captions": 0},
    "sd35-medium": {"target_modules": "feedforward", "steps": 4000, "captions": 0},
    "sdxl": {"target_modules": "feedforward", "steps": 4000, "captions": 0},
    "trajectories": {"target_modules": "feedforward", "steps": 400, "captions": 150},
    "unseen": {"target_modules": "all", "steps": 300, "captions": 100},
}


# what suits the embedded base, and what `auto` takes on a CPU, fixed for equal numbers everywhere
OF_THE_DEMO = {"guidance_scale", "loss_weighting", "target_modules", "mixed_precision"}


def test_notebook_defaults_are_the_demo_recipe_s_but_for_the_base_s_own(tmp_path):
    for stage, config in configs("demo", tmp_path).items():
        ours, usual = as_parameters(config), as_parameters(STAGES[stage]())
        differ = {name for name in ours if name not in PLACE and ours[name] != usual[name]}
        assert differ == (OF_THE_DEMO if stage == "train" else set()), stage
        assert usual["run"] == "outputs/notebook"


@pytest.mark.parametrize("name", recipe_names())
def test_recipe_values_are_unchanged(name, tmp_path):
    stages = configs(name, tmp_path)
    values = {name: getattr(stages["train"], name) for name in ("target_modules", "steps")}
    assert values | {"captions": stages["compare"].captions} == EXPECTED[name]
