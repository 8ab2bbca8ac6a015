import json

import numpy as np
import pytest
from PIL import Image

from nbs_lib.compare import compare, summary
from nbs_lib.config import Compare
from nbs_lib.run import Run


@pytest.fixture
def trained(base, adapter, run_folder) -> Run:
    """A run as 2_train leaves it, as far as comparing goes."""
    run = Run(run_folder)
    run.cache.mkdir(parents=True)
    (run.cache / "cache.json").write_text(json.dumps({"base": "embedded", "base_hash": base.hash, "resolution": 64}))
    run.adapter.symlink_to(adapter)
    run.update(stages={"train": {"status": "done", "outputs": {}}})
    return run


def config(run: Run, **changed) -> Compare:
    return Compare(**{"run": str(run.folder), "prompts": ["A boy is watching TV"], "seeds": [0, 4], "steps": 2} | changed)


def test_the_stage_leaves_pictures_numbers_figures_and_the_report(trained):
    compared = compare(config(trained, prompts=["A boy is watching TV", "<b>A cat</b>"], captions=10))
    results = json.loads((trained.compare / "results.json").read_text())
    assert results == compared.results
    assert set(results) == {
        *(
            "base",
            "base_origin",
            "base_hash",
            "objective",
            "whole_model",
            "sampling",
            "w_train",
            "steps",
            "resolution",
            "scheduler",
            "adapter_scale",
            "seeds",
            "contenders",
        ),
        *("guidance_recovered", "to_guided", "time_ratio", "nfe_ratio", "pictures", "figures"),
    }
    assert {name: told["nfe"] for name, told in results["contenders"].items()} == {"unguided": 2, "guided": 4, "tuned": 2}
    assert results["nfe_ratio"] == 0.5 and results["scheduler"] == "DDIMScheduler" and results["w_train"] == 2.5
    seconds = {name: told["seconds"] for name, told in results["contenders"].items()}
    assert results["time_ratio"] == seconds["tuned"] / seconds["guided"]
    for told in results["contenders"].values():
        assert told["caption_first"]["count"] == 10
        assert 0 <= told["caption_first"]["low"] <= told["caption_first"]["rate"] <= told["caption_first"]["high"] <= 1
    assert [(each["prompt"], each["seed"]) for each in results["pictures"]] == [
        ("A boy is watching TV", 0), ("A boy is watching TV", 4), ("<b>A cat</b>", 0), ("<b>A cat</b>", 4),
    ]  # fmt: skip
    assert results["pictures"][3]["files"]["tuned"] == "pictures/p01_s4_tuned.png"
    shown = [np.asarray(Image.open(trained.compare / f)) for each in results["pictures"] for f in each["files"].values()]
    assert len({picture.tobytes() for picture in shown}) == 12 and all(picture.shape == (64, 64, 3) for picture in shown)
    assert all((trained.compare / name).is_file() for name in ("grid.png", "rates.png"))
    record = trained.stage_record("compare")
    assert record["status"] == "done" and set(record["outputs"]) == {"compare/results.json", "report.html"}
    assert record["contenders"] == results["contenders"] and trained.changed(config(trained)) == ["parameters"]
    assert str(compared.report) in summary(compared) and "guidance recovered" in summary(compared)
    assert [path.name for path in trained.folder.glob(".*")] == []


def test_without_captions_nothing_is_said_of_them(trained):
    compared = compare(config(trained, captions=0, adapter_scale=0.0))
    assert compared.results["guidance_recovered"] is None and compared.results["figures"]["rates"] is None
    assert not (trained.compare / "rates.png").exists()
    assert compared.results["to_guided"]["tuned"] == compared.results["to_guided"]["unguided"]
    assert all(line.split()[1] == "–" for line in summary(compared).splitlines()[1:4])


def test_an_untrained_run_is_refused_before_anything_is_written(run_folder):
    with pytest.raises(FileNotFoundError, match="2_train"):
        compare(config(Run(run_folder)))
    assert not run_folder.exists()
