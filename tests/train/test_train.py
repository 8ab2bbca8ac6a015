"""The stage on real DeepSpeed processes, at every ZeRO stage it offers."""

import json

import pytest
from safetensors.torch import load_file

from nbs_lib.adapter import WEIGHTS
from nbs_lib.config import Prepare, Train
from nbs_lib.parameters import as_parameters
from nbs_lib.prepare import prepare
from nbs_lib.run import Run
from nbs_lib.train.data import DataError, check_cache

TRAIN = """
import sys, json
from nbs_lib.config import Train
from nbs_lib.train import train
train(Train(**json.loads(sys.argv[1])))
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Run:
    return prepare(Prepare(str(tmp_path_factory.mktemp("my rüns") / "prepared"), count=16)).run


def trained(prepared: Run, python, name: str, **changed) -> Run:
    """A run of four steps on the same cache."""
    run = Run(prepared.folder.parent / name)
    run.folder.mkdir()
    run.cache.symlink_to(prepared.cache.resolve())
    run.update(stages={"prepare": prepared.stage_record("prepare")})
    config = Train(**{"run": str(run.folder), "steps": 4, "batch_size": 2, "log_every": 1, "precision": "fp32"} | changed)
    done = python(TRAIN, json.dumps(as_parameters(config)))
    assert done.returncode == 0, done.stderr
    return run


def losses(run: Run) -> list[float]:
    return [json.loads(line)["loss"] for line in run.metrics.read_text().splitlines()]


def test_every_zero_stage_and_process_count_learns_the_same(prepared, python):
    """Four examples a step, shared by two processes or seen by one: the same batches, so the same training."""
    runs = {stage: trained(prepared, python, f"zero {stage}", zero_stage=stage) for stage in (0, 1, 2)}
    runs["one"] = trained(prepared, python, "one", zero_stage=0, processes=1, batch_size=4)
    for name, run in runs.items():
        record = run.stage_record("train")
        assert record["distributed_type"] == "DEEPSPEED" and record["processes"] == (1 if name == "one" else 2)
        assert losses(run) == pytest.approx(losses(runs[0]), rel=1e-5), name
        learned = load_file(run.adapter / WEIGHTS)
        assert any(value.abs().max() > 0 for key, value in learned.items() if ".up." in key or "lora_B" in key), (
            "an empty adapter"
        )
        for key, value in load_file(runs[0].adapter / WEIGHTS).items():
            assert learned[key] == pytest.approx(value, abs=2e-5), (name, key)


def test_a_damaged_cache_is_named_before_any_process_starts(prepared, tmp_path):
    folder = tmp_path / "cache"
    folder.mkdir()
    for path in prepared.cache.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    check_cache(folder)
    latents = folder / "latents.safetensors"
    latents.write_bytes(latents.read_bytes()[:-1] + b"\1")
    with pytest.raises(DataError, match="latents.safetensors is missing or damaged.*1_prepare"):
        check_cache(folder)
    latents.unlink()
    with pytest.raises(DataError, match="missing or damaged"):
        check_cache(folder)


def test_another_base_than_the_cache_s_is_refused_in_one_sentence(prepared, python):
    run = Run(prepared.folder.parent / "other base")
    run.cache.mkdir(parents=True)
    for path in prepared.cache.iterdir():
        (run.cache / path.name).write_bytes(path.read_bytes())
    meta = json.loads((run.cache / "cache.json").read_text())
    (run.cache / "cache.json").write_text(json.dumps(meta | {"base_hash": "another"}))
    run.update(stages={"prepare": prepared.stage_record("prepare")})
    config = Train(run=str(run.folder), steps=1, processes=1)
    done = python(TRAIN, json.dumps(as_parameters(config)))
    assert "base 'embedded' is not the one that the cache was made with" in run.stage_record("train")["error"]
    assert done.returncode != 0 and not run.adapter.exists()
