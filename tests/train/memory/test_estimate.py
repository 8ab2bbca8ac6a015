"""The plan of a training's memory, its parts by hand, and what real trainings took."""

import sys
from dataclasses import replace

import psutil
import pytest

from nbs_lib.config import Prepare, Train
from nbs_lib.files import ROOT
from nbs_lib.launch.errors import LaunchError
from nbs_lib.models import find_base
from nbs_lib.prepare import prepare
from nbs_lib.run import memory
from nbs_lib.run.run import Run
from nbs_lib.train.memory import estimate
from nbs_lib.train.memory.dry_run import DryRunSizes, dry_run
from nbs_lib.train.memory.estimate import (
    MIB,
    MemoryPlan,
    check_fits,
    describe_peaks,
    estimate_bytes,
    plan_memory,
)

sys.path.append(str(ROOT / "benchmarks"))
from sizes import ten_times  # noqa: E402

pytestmark = pytest.mark.slow

SIZES = DryRunSizes(
    resident=100,
    examples=10,
    frozen=2000,
    trained=40,
    learned=40,
    in_small_tensors=8,
    layers=4,
    denoiser=1000,
    activations=500,
    decoding=30,
)


@pytest.mark.parametrize(
    ("options", "ranks", "base", "weights", "gradients", "optimizer"),
    [
        (
            {"deepspeed": False},
            4,
            2000,
            160,
            160,
            320,
        ),  # 40 weights of 4 bytes, and AdamW's two states of each
        ({"zero_stage": 0}, 4, 2000, 160, 160, 320),
        (
            {"zero_stage": 1},
            4,
            2000,
            160,
            160 + 160,
            3 * 160 // 4,
        ),  # an fp32 copy beside the states, a quarter in each rank
        ({"zero_stage": 2}, 4, 2000, 160, 40 + 160, 120),
        ({"zero_stage": 3}, 4, 500, 160, 200, 120),
        ({"zero_stage": 3, "method": "full"}, 4, 500, 40, 200, 120),
        ({"zero_stage": 2}, 1, 2000, 160, 320, 480),
        ({"zero_stage": 0, "optimizer": "prodigy"}, 2, 2000, 160, 160, 640),
        (
            {"zero_stage": 0, "optimizer": "adamw_8bit"},
            2,
            2000,
            160,
            160,
            2 * (8 * 4 + 32),
        ),  # two means: 8 weights in fp32, 32 in a byte each, too few for a scale
        # all weights in bytes, and an fp32 copy
        ({"zero_stage": 1, "optimizer": "adamw_8bit"}, 4, 2000, 160, 320, (2 * 40 + 160) // 4),
    ],
)
def test_estimated_parts_by_hand(options, ranks, base, weights, gradients, optimizer):
    parts, passing = estimate_bytes(Train(mixed_precision="bf16", **options), SIZES, ranks)
    record = [
        parts[name]
        for name in ("base", "trained weights", "gradients", "optimizer", "mean of the weights")
    ]
    assert record == [base, weights, gradients, optimizer, 0]
    unet = 2000 + (160 if options.get("method") == "full" else 0)
    assert parts["gathered weights"] == (2 * unet if options.get("zero_stage") == 3 else 0)
    checks = (
        4000 if options.get("method") == "full" else 0
    )  # of a LoRA in bf16, whose frozen weights were as large
    stepping = {}
    if options.get("optimizer") == "adamw_8bit" and options["zero_stage"]:
        # five fp32 numbers for each weight of a process
        stepping = {"step of the optimizer": 5 * 160 // ranks}
    expected = {"activations": 500, "pictures": 30, "checks at the end": checks}
    assert passing == expected | stepping
    assert (
        estimate_bytes(Train(mixed_precision="fp32"), SIZES, 1)[1]["checks at the end"]
        == 4000 - 2000
    )


def test_the_largest_passing_part_counts_and_libraries_are_shared():
    planned = MemoryPlan(
        {"libraries": 100, "base": 50},
        {"activations": 30, "pictures": 40},
        processes=2,
        room=280,
        shared=100,
    )
    assert planned.peak == 190 and planned.needed == 100 + 2 * 90 and planned.fits
    assert not replace(planned, room=279).fits


@pytest.fixture(scope="module")
def larger(tmp_path_factory) -> Run:
    """Prepared with a base ten times larger."""
    folder = tmp_path_factory.mktemp("runs")
    return prepare(
        Prepare(
            str(folder / "prepared"), base=str(ten_times(folder / "ten times")), max_examples=16
        )
    ).run


def test_a_training_that_does_not_fit_is_refused_with_a_suggestion(prepared, monkeypatch):
    config, cache = Train(batch_size=256, num_processes=2, mixed_precision="bf16"), prepared.cache
    planned, saving = (
        plan_memory(config, cache, 2),
        plan_memory(replace(config, gradient_checkpointing=True), cache, 2),
    )
    assert saving.needed < planned.needed
    monkeypatch.setattr(estimate, "available_bytes", lambda: (planned.needed + saving.needed) // 2)
    tight = plan_memory(config, cache, 2)
    with pytest.raises(LaunchError) as refused:
        check_fits(tight, config, cache)
    message = str(refused.value)
    assert (
        f"needs {planned.needed / MIB:.0f} MiB in 2 processes, most of it for 'activations'"
        in message
    )
    assert "give gradient_checkpointing = True, which needs" in message
    monkeypatch.setattr(estimate, "available_bytes", lambda: 1)
    with pytest.raises(LaunchError, match="no change of batch_size"):
        check_fits(plan_memory(config, cache, 2), config, cache)
    check_fits(planned, config, cache)


def test_the_dry_run_of_a_gpu_includes_gradient_checkpointing(prepared):
    activations = [
        dry_run(
            Train(gradient_checkpointing=checkpointing, mixed_precision="bf16"),
            prepared.cache,
            gpu=True,
        ).activations
        for checkpointing in (True, False)
    ]
    assert 0 < activations[0] < activations[1] / 2
    autocast = Train(mixed_precision="bf16", lora_dropout=0.1)
    with_dropout = dry_run(autocast, prepared.cache, gpu=True).activations
    assert activations[1] < 0.9 * with_dropout, "an autocast's norms are in fp32"


def test_a_fake_score_is_trained_and_not_averaged(prepared):
    options = {"mixed_precision": "bf16", "ema_decay": 0.9}
    plain, few_steps = (
        dry_run(Train(objective=objective, **options), prepared.cache, gpu=False)
        for objective in ("guidance", "distribution")
    )
    assert few_steps.learned == plain.learned == plain.trained
    # a second adapter, and a row of the text's width for each number of steps
    width = find_base(prepared.stage_record("prepare")["parameters"]["base"]).denoiser().config
    assert few_steps.trained == 2 * plain.trained + 9 * width.cross_attention_dim
    # both adapters' passes wait for one backward pass
    assert few_steps.activations > 1.5 * plain.activations
    parts, _ = estimate_bytes(Train(ema_decay=0.9), replace(SIZES, trained=90), 1)
    assert (parts["trained weights"], parts["mean of the weights"]) == (360, 160)


def test_available_memory_of_the_machine_or_its_container(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert abs(estimate.available_bytes() - psutil.virtual_memory().available) < 2**30
    (tmp_path / "memory.max").write_text("5000000\n")
    (tmp_path / "memory.current").write_text("2000000\n")
    assert estimate.available_bytes() == 3_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert estimate.available_bytes() > 3_000_000


@pytest.mark.parametrize(
    ("base", "options"),
    [
        ("embedded", {"batch_size": 32, "validation_steps": 2, "validation_examples": 4}),
        ("ten times", {"batch_size": 8, "target_modules": "all", "zero_stage": 3}),
        ("ten times", {"batch_size": 4, "method": "full", "zero_stage": 2, "learning_rate": 1e-4}),
        (
            "ten times",
            {"batch_size": 4, "method": "full", "optimizer": "adamw_8bit", "learning_rate": 1e-4},
        ),
    ],
)
def test_a_real_training_matches_its_plan_within_a_fifth(
    prepared, larger, new_run, start_training, base, options
):
    run = new_run(prepared if base == "embedded" else larger)
    kernel = start_training(Train(str(run.folder), **{"steps": 2, "validation_steps": 0} | options))
    assert kernel.wait() == 0, kernel.output
    record = run.stage_record("train")["memory"]
    assert len(record["measured_mib"]) == 2 and "memory planned for a process" in kernel.output
    assert record["planned_mib"]["a process at its peak"] == pytest.approx(
        max(record["measured_mib"]), rel=0.2
    )


def test_peaks_in_words():
    record = {
        "planned_mib": {"base": 1.0, "a process at its peak": 640.4},
        "measured_mib": [655.2, 649.9],
    }
    assert (
        describe_peaks(**record)
        == "memory of a process at its peak: 640 MiB planned, 655, 650 measured"
    )
    assert (
        describe_peaks(None, [655.2])
        == "memory of a process at its peak: not planned, 655 measured"
    )
