"""The memory of a preparation: its plan, what processes took, and text encoders that leave."""

import gc
import json
import re
import sys
import weakref
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from nbs_lib.config import Prepare
from nbs_lib.files import ROOT
from nbs_lib.models import find_base
from nbs_lib.prepare import prepare
from nbs_lib.prepare.encode import memory
from nbs_lib.prepare.encode.memory import check_fits, plan_memory
from nbs_lib.prepare.encode.worker_process import Worker, WorkerError
from nbs_lib.run.memory import MIB

sys.path.append(str(ROOT / "benchmarks"))
from sizes import ten_times  # noqa: E402

PREPARE = """
import json, sys
from nbs_lib.config import Prepare
from nbs_lib.prepare import prepare
built = prepare(Prepare(**json.loads(sys.argv[1]))).built
print("MEMORY", json.dumps(built.memory))
"""


def fp32_bytes(model: torch.nn.Module) -> int:
    return 4 * sum(weight.numel() for weight in model.parameters())


def test_planned_parts_by_hand(base, tmp_path):
    options = {"num_processes": 2, "max_examples": 8, "batch_size": 8, "resolution": 64}
    config = Prepare(str(tmp_path), **options)
    plan = plan_memory(config, base)
    # the shipped files are in fp16 and not mapped once they are read
    assert plan.parts["VAE"] == fp32_bytes(base.vae())
    assert plan.parts["pictures"] == 2 * 8 * 3 * 64 * 64
    encoder = fp32_bytes(base.text_encoder())
    # at least the first layer's input and output for a batch, in fp32
    first = base.vae().config.block_out_channels[0] * 64 * 64 * 8 * 4
    assert 2 * first < plan.passing["encoding"] - encoder < 10 * first
    assert plan.processes == 2 and plan.shared == plan.parts["libraries"]
    taught = plan_memory(replace(config, teacher_cache="data"), base)
    assert taught.passing["encoding"] == plan.passing["encoding"]
    assert taught.passing["teacher"] > fp32_bytes(base.denoiser())
    twice = plan_memory(replace(config, batch_size=16, max_examples=16), base)
    activations = [one.passing["encoding"] - encoder for one in (plan, twice)]
    assert activations[1] == pytest.approx(2 * activations[0], rel=0.01)
    # a captioner's weights are read as fp32, and leave with the text encoders
    save_file({"a": torch.zeros(100, 200, dtype=torch.float16)}, tmp_path / "model.safetensors")
    captioned = plan_memory(config, base, tmp_path)
    assert captioned.passing["encoding"] - plan.passing["encoding"] == 4 * 100 * 200


def test_the_teacher_reads_as_many_tokens_as_the_family_has(tiny_base, tmp_path):
    """SD 3 has those of T5 behind CLIP's, with T5 or without."""
    base = find_base(str(tiny_base("sd3", tmp_path / "base")))
    options = {"num_processes": 1, "max_examples": 8, "batch_size": 8, "resolution": 32}
    plan = plan_memory(Prepare(str(tmp_path), **options, teacher_cache="data"), base)
    activations = plan.passing["teacher"] - fp32_bytes(base.denoiser())
    # at least query, key and value of a block, for all tokens of pictures and texts
    tokens = 4 * 4 + base.tokenizer().model_max_length + 256
    assert activations > 3 * 8 * tokens * 32 * 4


def test_a_preparation_that_does_not_fit_is_refused_with_a_suggestion(
    base, run_folder, monkeypatch
):
    config = Prepare(str(run_folder), num_processes=2, max_examples=64)
    monkeypatch.setattr(memory, "available_bytes", lambda: 1)
    # a first preparation loads what the plans of later ones count as libraries
    with pytest.raises(WorkerError, match="take a smaller base"):
        prepare(config)
    plan = plan_memory(config, base)
    small = plan_memory(replace(config, num_processes=1, batch_size=8), base)
    monkeypatch.setattr(memory, "available_bytes", lambda: small.needed + 4 * MIB)
    with pytest.raises(WorkerError) as refused:
        prepare(config)
    message = str(refused.value)
    needed = re.search(r"needs (\d+) MiB in 2 processes", message)
    assert int(needed[1]) == pytest.approx(plan.needed / MIB, abs=4)
    assert "give num_processes = 1 and batch_size = 8, which needs" in message
    assert not list(run_folder.parent.glob("cache/*/cache.json"))
    monkeypatch.setattr(memory, "available_bytes", lambda: plan.needed + 64 * MIB)
    check_fits(plan_memory(config, base), config, base)


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_text_encoders_leave_and_come_back(kind, tiny_base, tmp_path):
    base = find_base(str(tiny_base(kind, tmp_path / "base")))
    worker = Worker(base, torch.device("cpu"), 2)
    worker.release_text_models()
    worker.write_texts(tmp_path / "texts.safetensors", ["a cat"], {})
    gone = [weakref.ref(encoder) for _, encoder in worker.encoder.text_encoders]
    assert all(encoder() is not None for encoder in gone)
    worker.release_text_models()
    gc.collect()
    assert [encoder() for encoder in gone] == [None] * len(gone)
    worker.write_texts(tmp_path / "again.safetensors", ["a cat"], {})
    first, again = (tmp_path / f"{name}.safetensors" for name in ("texts", "again"))
    assert first.read_bytes() == again.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("embedded", {"max_examples": 128}),
        ("embedded", {"max_examples": 32, "resolution": 256}),
        ("ten times", {"max_examples": 32, "teacher_cache": "data", "teacher_samples": 1}),
    ],
)
def test_a_real_preparation_matches_its_plan_within_a_fifth(
    kind, options, tmp_path, run_folder, python
):
    base = "embedded" if kind == "embedded" else str(ten_times(tmp_path / "base"))
    options = {"run": str(run_folder), "base": base, "num_processes": 2, **options}
    # in a process of its own, because the workers are copies of the one that starts them
    done = python(PREPARE, json.dumps(options))
    assert done.returncode == 0, done.stderr
    [line] = [line for line in done.stdout.splitlines() if line.startswith("MEMORY ")]
    measured = json.loads(line.removeprefix("MEMORY "))
    assert len(measured["measured_mib"]) == 2
    assert "memory planned for a process" in done.stdout
    assert measured["planned_mib"]["a process at its peak"] == pytest.approx(
        max(measured["measured_mib"]), rel=0.2
    )
    record = json.loads((run_folder / "run.json").read_text())["stages"]["prepare"]
    assert record["memory"] == measured
