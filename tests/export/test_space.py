"""The app of a Space, without a browser: it draws what the run's own sampler draws."""

import json
import sys
from importlib.resources import files
from types import ModuleType
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch

from nbs_lib import export
from nbs_lib.compare.sampling.sampler import Sampler
from nbs_lib.export.model_card import export_metadata
from nbs_lib.export.space import app_settings
from nbs_lib.models import find_base
from nbs_lib.models.lora.layers import add_lora
from nbs_lib.models.lora.saving import save_adapter
from nbs_lib.run.run import Run

W, STEPS, SEED, PROMPT = 4.0, 3, 7, "a cat"
# how an adapter of each objective is sampled, by the family of its base
GUIDANCE = {"objective": "guidance"}
CONSISTENCY = {"objective": "consistency"}
FEW_STEPS = {"guidance_scale": 1.0, "timestep_spacing": "trailing", "steps": 2}
EULER = {"scheduler": "FlowMatchEulerDiscreteScheduler"}
LCM = {"scheduler": "FlowMatchLCMScheduler"}
DISTRIBUTION = {"objective": "distribution", "sampling": FEW_STEPS | EULER}


@pytest.fixture(scope="module")
def base_folder(tiny_base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")
    return {kind: tiny_base(kind, folder / kind) for kind in ("sd1", "sd3")}


def add_adapter(run: Run, base, metadata: dict):
    """Write an adapter that changes pictures well beyond rounding."""
    denoiser = base.denoiser()
    add_lora(denoiser, rank=2, alpha=2.0, seed=0)
    generator = torch.Generator().manual_seed(1)
    for name, weight in denoiser.named_parameters():
        if "lora_B" in name:
            weight.data.copy_(torch.randn(weight.shape, generator=generator) * 0.2)
    save_adapter(run.adapter, denoiser, metadata)


def load_app(run: Run, base, monkeypatch) -> ModuleType:
    """Return the app as a module, beside a stand-in for Gradio, which is not installed here."""
    settings = app_settings(export_metadata(run, ()))
    # instead of the hub, from which nothing can be fetched here
    settings |= {"base": str(base.folder), "revision": ""}
    (run.folder / "settings.json").write_text(json.dumps(settings))
    monkeypatch.setitem(sys.modules, "gradio", MagicMock())
    app = ModuleType("app")
    app.__file__ = str(run.folder / "app.py")
    exec(files(export).joinpath("space_app.py.txt").read_text("utf-8"), app.__dict__)
    return app


@pytest.mark.parametrize(
    ("kind", "learned", "passes"),
    [
        ("sd1", GUIDANCE, STEPS),
        ("sd3", GUIDANCE, STEPS),
        ("sd3", DISTRIBUTION, 2),
        ("sd3", CONSISTENCY | {"sampling": FEW_STEPS | LCM}, 2),
    ],
    ids=["sd1", "sd3", "sd3 in few steps", "sd3 with noise between steps"],
)
def test_the_app_draws_the_run_s_pictures(
    base_folder, one_thread, tmp_path, monkeypatch, kind, learned, passes
):
    base = find_base(str(base_folder[kind]))
    run = Run(tmp_path / "a run")
    origin = f"some-one/tiny@{'1' * 40}"
    metadata = {"base": "tiny", "base_origin": origin, "base_hash": base.hash, "w_train": W}
    metadata |= {"resolution": 32, "base_options": base.load_options}
    add_adapter(run, base, metadata | learned)
    app = load_app(run, base, monkeypatch)
    guided, guided_cost, tuned, tuned_cost = app.draw(PROMPT, SEED, STEPS, W, 1.0)
    assert guided_cost.startswith(f"{2 * STEPS} passes, ")
    assert tuned_cost.startswith(f"{passes} passes, ")
    sampler = Sampler(base, run.adapter, resolution=32)
    for name, picture in (("guided", guided), ("tuned", tuned)):
        # a scheduler that draws noise at each step draws another one in the app
        if learned["objective"] == "consistency" and name == "tuned":
            again = app.draw(PROMPT, SEED, STEPS, W, 1.0)[2]
            assert np.array_equal(np.asarray(again), np.asarray(picture))
            continue
        [expected] = sampler.sample(sampler.resolver.resolve(name, STEPS), [PROMPT], [SEED]).images
        assert np.abs(np.asarray(picture).astype(int) - expected.astype(int)).max() <= 1, name
