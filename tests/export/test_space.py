"""The app of a Space on a flow: it draws what the run's own sampler draws, without a browser."""

import runpy
import shutil
import sys
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest

from nbs_lib.compare.sampling.sampler import Sampler
from nbs_lib.export.model_card import export_metadata
from nbs_lib.export.space import app_settings, write_app
from nbs_lib.models import find_base
from nbs_lib.models.lora.layers import ADAPTER_NAME, add_lora, named_lora_parameters
from nbs_lib.models.lora.saving import save_adapter
from nbs_lib.run.run import Run

PROMPT = "A boy is watching TV"
SEED = 7
STEPS = 3
W = 4.0
RECIPES = {
    "guidance": {"scheduler": "FlowMatchEulerDiscreteScheduler"},
    "distribution": {
        "scheduler": "FlowMatchEulerDiscreteScheduler",
        "timestep_spacing": "trailing",
        "steps": 2,
    },
    "consistency": {
        "scheduler": "FlowMatchLCMScheduler",
        "timestep_spacing": "trailing",
        "steps": 2,
    },
}


@pytest.fixture(scope="module")
def base(tiny_base, tmp_path_factory, one_thread):
    """A tiny SD 3 without T5."""
    return find_base(str(tiny_base("sd3", tmp_path_factory.mktemp("base") / "base")))


def trained_run(base, objective: str, folder: Path) -> Run:
    """Return a run with an adapter that changes pictures."""
    denoiser = base.denoiser()
    add_lora(denoiser, 2, 2.0, seed=0)
    for name, parameter in named_lora_parameters(denoiser, ADAPTER_NAME).items():
        if "lora_B" in name:
            parameter.data.fill_(0.1)
    metadata = {
        # the name whose folder a Space has
        "base": "embedded",
        "base_hash": base.hash,
        "base_options": base.load_options,
        "w_train": W,
        "resolution": 32,
        "objective": objective,
        "sampling": {"guidance_scale": 1.0} | RECIPES[objective],
        "train": {"few_steps": [2]} if objective == "distribution" else {},
    }
    run = Run(folder / "run")
    run.folder.mkdir()
    save_adapter(run.adapter, denoiser, metadata)
    return run


@pytest.mark.parametrize("objective", RECIPES)
def test_the_app_draws_the_samplers_pictures(base, tmp_path, monkeypatch, objective):
    run = trained_run(base, objective, tmp_path)
    folder = tmp_path / "space"
    folder.mkdir()
    shutil.copytree(base.folder, folder / "base")
    shutil.copytree(run.adapter, folder / "adapter")
    write_app(folder, app_settings(export_metadata(run, ())))
    # the page is tested in a browser; here the functions behind it are called
    monkeypatch.setitem(sys.modules, "gradio", MagicMock())
    app = runpy.run_path(str(folder / "app.py"))
    guided, guided_cost, tuned, tuned_cost = app["draw"](PROMPT, SEED, STEPS, W, 1.0)

    sampler = Sampler(base, run.adapter, resolution=32)
    for name, picture, cost in (("guided", guided, guided_cost), ("tuned", tuned, tuned_cost)):
        samples = sampler.sample(sampler.resolver.resolve(name, STEPS), [PROMPT], [SEED])
        difference = np.asarray(picture).astype(int) - samples.images[0].astype(int)
        assert np.abs(difference).max() <= 1, name
        assert cost.startswith(f"{samples.nfe:.0f} denoiser passes, ")
    assert np.abs(np.asarray(guided).astype(int) - np.asarray(tuned)).max() > 5
    # pictures depend on the seed alone
    again = app["draw"](PROMPT, SEED, STEPS, W, 1.0)[2]
    np.testing.assert_array_equal(np.asarray(again), np.asarray(tuned))
