"""A fine-tuning's comparison: own pictures beside those drawn before and after."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from nbs_lib.cache.format import open_cache
from nbs_lib.compare import compare, summary
from nbs_lib.compare.own_pictures import BEFORE_AND_AFTER, read_own_examples
from nbs_lib.config import Compare
from nbs_lib.models.lora.layers import add_lora
from nbs_lib.models.lora.saving import save_adapter
from nbs_lib.run.run import Run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def fine_tuned(base, new_run) -> Run:
    """Return a run whose adapter says that it was fine-tuned, on 16 pictures and 8 of a prior."""
    run = new_run()
    unet = base.denoiser()
    add_lora(unet, rank=2, alpha=2.0, seed=0)
    metadata = {
        "base": "embedded",
        "base_hash": base.hash,
        "w_train": 4.0,
        "objective": "finetune",
        "sampling": {"guidance_scale": 4.0, "scheduler": "DDIMScheduler"},
    }
    save_adapter(run.adapter, unet, metadata)
    run.update_stage(
        "train",
        status="done",
        outputs={},
        held_out_loss=[0.25, 0.125],
        examples={"own": 12, "prior": 8, "held_out": 4},
        inputs=run.inputs(Compare(str(run.folder))),
    )
    return run


def test_own_examples_are_of_the_source_alone(fine_tuned):
    cache = open_cache(fine_tuned.cache)
    prior = set(np.array(cache.captions)[np.array(cache.examples["prior"].to_pylist())])
    examples = read_own_examples(fine_tuned)
    assert len(examples.captions) == len(examples.latents) == 12
    assert set(examples.captions) <= set(cache.captions)
    first = cache.captions.index(examples.captions[0])
    assert torch.equal(examples.latents[0], cache.latents([first])[0])
    assert len(set(examples.captions) - prior) > 0


def test_a_run_without_its_cache_has_no_own_examples(tmp_path):
    assert read_own_examples(Run(tmp_path / "run")) is None


def test_the_report_shows_own_pictures_before_and_after(fine_tuned):
    compared = compare(
        Compare(
            str(fine_tuned.folder), prompts=["A boy is watching TV"], seeds=[0], steps=2, captions=0
        )
    )
    own = compared.results["own"]
    assert own["count"] == 12 and set(own["likeness"]) == set(BEFORE_AND_AFTER)
    before, after = (own["likeness"][name]["value"] for name in BEFORE_AND_AFTER)
    # the adapter is new and changes nothing yet
    assert before == pytest.approx(after, abs=1e-4) and 0 < before < 1
    with Image.open(compared.folder / "own.png") as figure:
        pixels = np.asarray(figure.convert("RGB"))
    assert pixels.shape[0] > 3 * 128, "three rows of pictures"
    page = fine_tuned.report.read_text()
    assert page.index("Your pictures, before and after") < page.index("In numbers")
    assert "Likeness to your pictures" in page and "0.25 before the training" in page
    assert "12</dd><dd>trained on, 4 held out; 8 of the prior beside them" in page
    assert "Time, tuned to guided" not in page
    text = summary(compared)
    assert "likeness to 12 of your pictures" in text and "of guided's time" not in text


def test_a_report_of_an_earlier_version_has_no_own_pictures(fine_tuned, tmp_path):
    from nbs_lib.compare.report.html import write_report

    copy = Run(tmp_path / "copy")
    shutil.copytree(fine_tuned.folder, copy.folder, symlinks=True)
    results = json.loads((copy.compare / "results.json").read_text())
    del results["own"], results["figures"]["own"]
    (copy.compare / "results.json").write_text(json.dumps(results))
    assert "Your pictures, before and after" not in write_report(copy).read_text()
