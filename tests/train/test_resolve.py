"""Parameters that leave a choice: what they come to on a machine and a cache."""

import json

import pytest

from nbs_lib.config import Train
from nbs_lib.files import read_jsonl
from nbs_lib.launch.errors import LaunchError
from nbs_lib.models.lora.metadata import load_metadata
from nbs_lib.pipeline.runs.table import run_values
from nbs_lib.train import resolve
from nbs_lib.train.resolve import resolve_choices


@pytest.fixture
def cache(tmp_path):
    """A cache's folder, as far as a precision is chosen by it."""
    (tmp_path / "cache.json").write_text(json.dumps({"shapes": {"4 16 16": 8, "4 32 8": 2}}))
    return tmp_path


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"teacher": "cached", "batch_size": 1}, "fp32"),
        ({"teacher": "cached", "batch_size": 2}, "bf16"),
        ({"batch_size": 1}, "fp32"),
        ({"batch_size": 2}, "bf16"),
        ({"batch_size": 1, "objective": "finetune"}, "fp32"),
        ({"batch_size": 2, "method": "full", "objective": "finetune"}, "bf16"),
        ({"batch_size": 1, "mixed_precision": "fp32"}, "fp32"),
    ],
)
def test_on_a_cpu_small_batches_are_in_fp32_and_others_in_bf16(
    cache, monkeypatch, options, expected
):
    monkeypatch.setattr(resolve, "multiplies_bf16", lambda: True)
    assert resolve_choices(Train(**options), cache).mixed_precision == expected
    monkeypatch.setattr(resolve, "multiplies_bf16", lambda: False)
    assert resolve_choices(Train(**options), cache).mixed_precision == "fp32"


@pytest.mark.parametrize(
    ("capability", "options", "expected"),
    [
        ((8, 0), {}, "bf16"),
        ((7, 5), {}, "fp16"),
        ((7, 5), {"zero_stage": 2}, "fp16"),
        ((7, 0), {"zero_stage": 3}, "fp32"),
        ((7, 5), {"zero_stage": 2, "lora_dropout": 0.1}, "fp32"),
        ((9, 0), {"zero_stage": 3}, "bf16"),
    ],
)
def test_on_a_gpu_the_driver_decides_on_bf16(cache, monkeypatch, capability, options, expected):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr(resolve, "gpu_handles", lambda: ["a GPU"])
    monkeypatch.setattr("pynvml.nvmlDeviceGetCudaComputeCapability", lambda gpu: capability)
    assert resolve_choices(Train(**options), cache).mixed_precision == expected


@pytest.mark.slow
def test_epochs_and_auto_are_resolved_and_recorded(new_run, prepared_tiny, start_training):
    run = new_run(prepared_tiny)
    config = Train(
        str(run.folder),
        epochs=2,
        batch_size=2,
        num_processes=1,
        deepspeed=False,
        validation_steps=0,
        log_every=1,
    )
    kernel = start_training(config)
    assert kernel.wait() == 0, kernel.output
    n_training = run.stage_record("train")["examples"]["own"]
    steps = 2 * -(-n_training // 2)
    assert f"2 epochs: {steps} steps" in kernel.output and "mixed_precision: " in kernel.output
    record = run.stage_record("train")
    assert record["resolved"]["steps"] == steps and record["resolved"]["mixed_precision"] in (
        "fp32",
        "bf16",
    )
    facts = load_metadata(run.adapter)["train"]
    assert (facts["steps"], facts["mixed_precision"]) == (
        steps,
        record["resolved"]["mixed_precision"],
    )
    assert [line["step"] for line in read_jsonl(run.metrics)] == list(range(1, steps + 1))
    assert run_values(run)["train.steps"] == steps
    assert run.changed(config) == [], "asked again, it is kept"


def test_an_incomplete_last_step_of_an_epoch_counts(monkeypatch, cache):
    monkeypatch.setattr(
        resolve, "Examples", lambda folder, config: type("Ten", (), {"training": range(10)})
    )
    config = Train(
        epochs=3,
        batch_size=2,
        gradient_accumulation_steps=2,
        num_processes=2,
        mixed_precision="fp32",
    )
    assert resolve_choices(config, cache).steps == 3 * 2
    assert resolve_choices(Train(steps=7, mixed_precision="fp32"), cache).steps == 7


def test_without_deepspeed_training_is_plain_and_zero_is_refused(cache, monkeypatch):
    assert resolve_choices(Train(), cache).deepspeed
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    plain = resolve_choices(Train(zero_stage=0), cache)
    assert not plain.deepspeed and plain.zero_stage == 0
    assert not resolve_choices(Train(deepspeed=False, zero_stage=2), cache).deepspeed
    with pytest.raises(LaunchError, match="zero_stage: given 2, which needs DeepSpeed"):
        resolve_choices(Train(zero_stage=2), cache)
