"""Trainings on a GPU against the same ones on a CPU; skipped on a machine without a GPU."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from safetensors.torch import load_file

from nbs_lib.config import Train
from nbs_lib.files import ROOT, read_jsonl
from nbs_lib.models.lora.metadata import LORA_FILE
from nbs_lib.run.environment import gpus
from nbs_lib.run.run import Run
from nbs_lib.train import trained_weights

# CI has none either, and no installation could give it one
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not gpus(), reason="this machine has no GPU")]

SMALL = {
    "steps": 4,
    "batch_size": 4,
    "log_every": 1,
    "checkpointing_steps": 2,
    "validation_steps": 2,
    "validation_examples": 4,
}
SMALL |= {"num_processes": min(2, len(gpus())), "mixed_precision": "bf16"}
ENGINES = {
    "fp32": {"mixed_precision": "fp32", "zero_stage": 0},
    "fp32, TF32": {"mixed_precision": "fp32", "allow_tf32": True},
    "fp16": {"mixed_precision": "fp16", "zero_stage": 0},
    "fp16, ZeRO 2": {"mixed_precision": "fp16", "zero_stage": 2},
    "fp16, DoRA": {"mixed_precision": "fp16", "method": "dora"},
    "compiled whole": {"compile": "whole"},
    "blocks compiled, ZeRO 2": {"compile": "blocks", "zero_stage": 2},
    "compiled whole, checkpointing": {"compile": "whole", "gradient_checkpointing": True},
    "bf16, ZeRO 2": {"zero_stage": 2},
    "bf16, ZeRO 3": {"zero_stage": 3},
    "offloaded": {"zero_stage": 2, "offload": True},
    "offloaded, afresh": {"zero_stage": 2, "offload": True, "launcher": "subprocess"},
    "plain, fp16": {"mixed_precision": "fp16", "deepspeed": False, "zero_stage": 0},
    "checkpointing, all layers": {
        "gradient_checkpointing": True,
        "target_modules": "all",
        "zero_stage": 0,
    },
    "full": {"method": "full", "zero_stage": 2, "learning_rate": 1e-4},
    "full, ZeRO 3, offloaded": {
        "method": "full",
        "zero_stage": 3,
        "offload": True,
        "learning_rate": 1e-4,
    },
}
TRAIN = """
import json, sys
from nbs_lib.config import Train
from nbs_lib.train import train
train(Train(**json.loads(sys.argv[1])))
"""


def on_gpu(source: str, *arguments: str) -> subprocess.CompletedProcess:
    """Run Python source in a process of its own that sees the GPUs."""
    hidden = ("CUDA_VISIBLE_DEVICES", "PYTORCH_NVML_BASED_CUDA_CHECK")  # both are ours
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    command = [sys.executable, "-W", "ignore", "-c", source, *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.fixture
def trained(start_training):
    """`trained(config)`: its run, trained on the GPUs."""

    def call(config: Train) -> Run:
        kernel = start_training(config, gpus=True)
        assert kernel.wait() == 0, kernel.output
        return Run(config.run)

    return call


def losses(run: Run) -> list[float]:
    return [line["loss"] for line in read_jsonl(run.metrics) if "loss" in line]


@pytest.fixture(scope="module")
def on_cpu(new_run, train):
    """`on_cpu(options)`: the losses of the same training on a CPU in fp32, computed once."""
    results = {}

    def call(options: dict) -> list[float]:
        same = {
            name: options[name]
            for name in ("method", "target_modules", "learning_rate")
            if name in options
        }
        if str(same) not in results:
            run = new_run()
            train(
                Train(
                    str(run.folder),
                    **SMALL | same | {"mixed_precision": "fp32", "deepspeed": False},
                )
            )
            results[str(same)] = losses(run)
        return results[str(same)]

    return call


@pytest.mark.parametrize("engine", ENGINES)
def test_a_training_matches_the_cpu_and_is_resumed(new_run, on_cpu, trained, interrupted, engine):
    options = ENGINES[engine]
    config = Train(str(new_run().folder), **SMALL | options)
    run = trained(config)
    record = run.stage_record("train")
    assert record["device"].startswith("cuda") and record["processes"] == SMALL["num_processes"]
    assert losses(run) == pytest.approx(
        on_cpu(options),
        rel=2e-3 if config.mixed_precision == "fp32" and not config.allow_tf32 else 3e-2,
    )
    assert (
        any("gpus" in line for line in read_jsonl(run.usage))
        and (run.folder / "usage.png").stat().st_size > 0
    )
    assert record["memory"]["planned_mib"] and min(record["memory"]["measured_mib"]) > 0
    again = interrupted(run)
    trained(replace(config, run=str(again.folder)))
    assert again.stage_record("train")["resumed_from"] == 2
    one, other = (load_file(trained_weights(trained_run, config)) for trained_run in (run, again))
    for key, value in one.items():
        assert other[key] == pytest.approx(value, abs=2e-4), key
    if config.method != "full":
        assert any(
            value.abs().max() > 0
            for key, value in load_file(run.adapter / LORA_FILE).items()
            if "lora_B" in key
        )


@pytest.mark.parametrize("touched", ["torch.cuda.is_available()", "torch.zeros(1, device='cuda')"])
def test_a_kernel_that_has_touched_cuda_is_refused_and_trains_in_subprocesses(new_run, touched):
    config = Train(str(new_run().folder), **SMALL)
    refused = on_gpu(f"import torch; {touched}\n{TRAIN}", json.dumps(asdict(config)))
    assert "LaunchError: CUDA was used in this kernel" in refused.stderr
    afresh = on_gpu(
        f"import torch; {touched}\n{TRAIN}",
        json.dumps(asdict(replace(config, launcher="subprocess"))),
    )
    assert afresh.returncode == 0, afresh.stdout + afresh.stderr
    assert Path(config.run, "adapter", LORA_FILE).exists()
