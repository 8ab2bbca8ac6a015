"""Trainings resumed from checkpoints, also damaged and foreign ones."""

import json
import pickle
import shutil
from pathlib import Path

import pytest

from nbs_lib.config import Train
from nbs_lib.files import file_hash, value_hash
from nbs_lib.models.lora.metadata import LORA_FILE
from nbs_lib.run.run import Run
from nbs_lib.train.checkpoint.checkpoint import MANIFEST_FILE, SHARED_FILE

pytestmark = pytest.mark.slow

SMALL = {
    "steps": 6,
    "batch_size": 1,
    "log_every": 1,
    "checkpointing_steps": 2,
    "validation_steps": 0,
}
ENGINES = {
    "plain": {"deepspeed": False, "ema_decay": 0.9, "lora_dropout": 0.1},
    "ZeRO 0": {"zero_stage": 0, "ema_decay": 0.9, "optimizer": "prodigy", "learning_rate": 1.0},
    "ZeRO 2": {
        "zero_stage": 2,
        "ema_decay": 0.9,
        "lora_dropout": 0.1,
        "gradient_accumulation_steps": 2,
    },
    "ZeRO 3": {"zero_stage": 3},
    # two adapters that learn in turn, of which the checkpoint holds both
    "generator, plain": {"objective": "distribution", "ema_decay": 0.9, "deepspeed": False},
    "generator, ZeRO 0": {"objective": "distribution", "ema_decay": 0.9, "few_steps": [4, 2]},
    "generator, ZeRO 1": {"objective": "distribution", "zero_stage": 1},
    "generator, ZeRO 2": {"objective": "distribution", "ema_decay": 0.9, "zero_stage": 2},
    "ZeRO 1, offloaded": {"zero_stage": 1, "offload": True, "mixed_precision": "fp32"},
    # of this rank, a part of the weights is in tensors that are large enough for eight bits
    "ZeRO 0, eight bits": {"optimizer": "adamw_8bit", "rank": 64, "alpha": 64.0},
    "ZeRO 2, eight bits": {"optimizer": "adamw_8bit", "zero_stage": 2},
    "ZeRO 3, eight bits": {"optimizer": "adamw_8bit", "zero_stage": 3},
}


@pytest.fixture(scope="module")
def uninterrupted(new_run, prepared_tiny, train):
    """`whole(way)`: a training that was never interrupted; each is trained once."""
    runs: dict[str, Run] = {}

    def call(engine: str) -> Run:
        if engine not in runs:
            runs[engine] = new_run(prepared_tiny)
            train(config_of(engine, runs[engine]))
        return runs[engine]

    return call


def config_of(engine: str, run: Run) -> Train:
    return Train(str(run.folder), **SMALL | ENGINES[engine])


def unfinished(run: Run, folder: Path) -> Run:
    """A copy of a trained run with both of its checkpoints, as if its end had never come."""
    other = Run(folder / "run")
    shutil.copytree(run.folder, other.folder, symlinks=True)
    shutil.rmtree(other.adapter)
    other.update_stage("train", status="interrupted")
    return other


def resumed(start_training, engine: str, run: Run) -> str:
    """Train to the end; return the output."""
    kernel = start_training(config_of(engine, run))
    assert kernel.wait() == 0, kernel.output
    return kernel.output


# the others are resumed below
@pytest.mark.parametrize(
    "engine",
    [
        "ZeRO 0",
        "ZeRO 1, offloaded",
        "ZeRO 3",
        "generator, plain",
        "generator, ZeRO 0",
        "generator, ZeRO 1",
        "generator, ZeRO 2",
        "ZeRO 0, eight bits",
        "ZeRO 2, eight bits",
        "ZeRO 3, eight bits",
    ],
)
def test_a_resumed_training_ends_in_the_same_adapter(
    uninterrupted, interrupted, start_training, engine
):
    again = interrupted(uninterrupted(engine))
    resumed(start_training, engine, again)
    assert again.stage_record("train")["resumed_from"] == 4
    assert (again.adapter / LORA_FILE).read_bytes() == (
        uninterrupted(engine).adapter / LORA_FILE
    ).read_bytes()


@pytest.mark.parametrize(
    ("engine", "damaged"), [("plain", SHARED_FILE), ("ZeRO 2", "process-1.safetensors")]
)
def test_a_damaged_checkpoint_is_reported_and_skipped(
    uninterrupted, tmp_path, start_training, engine, damaged
):
    run = unfinished(uninterrupted(engine), tmp_path)
    newest = run.checkpoints / "step-0000006"
    content = bytearray((newest / damaged).read_bytes())
    content[-40:-36] = bytes(
        255 - byte for byte in content[-40:-36]
    )  # four bytes, and the size is as before
    (newest / damaged).write_bytes(content)
    output = resumed(start_training, engine, run)
    assert f"{newest} is damaged and passed over: ValueError: {damaged}" in output
    assert run.stage_record("train")["resumed_from"] == 4
    assert (run.adapter / LORA_FILE).read_bytes() == (
        uninterrupted(engine).adapter / LORA_FILE
    ).read_bytes()


class Malicious:
    """An object whose pickle makes a file when it is loaded."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def poison(checkpoint: Path, names: list[str], marker: Path):
    """Put a pickle in the place of files, and write the note as whoever owns the folder can."""
    for name in names:
        (checkpoint / name).parent.mkdir(parents=True, exist_ok=True)
        (checkpoint / name).write_bytes(pickle.dumps(Malicious(marker)))
    manifest = json.loads((checkpoint / MANIFEST_FILE).read_text())
    del manifest["hash"]
    paths = [
        path for path in checkpoint.rglob("*") if path.is_file() and path.name != MANIFEST_FILE
    ]
    manifest["files"] = {
        str(path.relative_to(checkpoint)): {"bytes": path.stat().st_size, "sha256": file_hash(path)}
        for path in paths
    }
    (checkpoint / MANIFEST_FILE).write_text(json.dumps(manifest | {"hash": value_hash(manifest)}))


FIRST_FORMAT_FILES = ["optimizer.bin", "custom_checkpoint_0.pkl", "random_states_0.pkl", "latest"]
FIRST_FORMAT_FILES += [
    "pytorch_model/mp_rank_00_model_states.pt",
    "pytorch_model/zero_pp_rank_0_mp_rank_00_optim_states.pt",
]


@pytest.mark.parametrize("engine", ["plain", "ZeRO 0", "ZeRO 2"])
def test_no_pickle_of_a_checkpoint_is_ever_loaded(uninterrupted, tmp_path, start_training, engine):
    run, marker = unfinished(uninterrupted(engine), tmp_path), tmp_path / "was here"
    pickle.loads(pickle.dumps(Malicious(marker)))
    assert marker.exists(), "so they do what they are to do"
    marker.unlink()
    last, before = run.checkpoints / "step-0000006", run.checkpoints / "step-0000004"
    poison(last, [SHARED_FILE], marker)
    poison(
        before, [path.name for path in before.iterdir() if path.name.startswith("process-")], marker
    )
    for folder in (last, before):
        poison(folder, ["optimizer.bin"], marker)  # flat, so that the note can list it
    output = resumed(start_training, engine, run)
    assert not marker.exists()
    assert (
        f"{last} is damaged and passed over" in output
        and f"{before} is damaged and passed over" in output
    )
    assert run.stage_record("train")["resumed_from"] == 0
    assert (run.adapter / LORA_FILE).read_bytes() == (
        uninterrupted(engine).adapter / LORA_FILE
    ).read_bytes()


def test_a_checkpoint_of_the_first_format_is_refused_and_not_opened(
    uninterrupted, tmp_path, start_training
):
    run, marker = unfinished(uninterrupted("plain"), tmp_path), tmp_path / "was here"
    shutil.rmtree(run.checkpoints / "step-0000006")
    folder = run.checkpoints / "step-0000004"
    poison(folder, FIRST_FORMAT_FILES, marker)
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    earlier = {name: manifest[name] for name in ("step", "inputs", "parameters")}
    earlier["files"] = {name: entry["bytes"] for name, entry in manifest["files"].items()}
    (folder / MANIFEST_FILE).write_text(json.dumps(earlier))
    kernel = start_training(config_of("plain", run))
    assert kernel.wait() != 0 and not marker.exists() and folder.exists()
    assert all(
        output in kernel.output
        for output in ("CheckpointError", "earlier version", f"remove {run.checkpoints} to start")
    )


LONGER = {
    "deepspeed": False,
    "lr_scheduler": "constant",
    "lr_warmup_steps": 3,
    "ema_decay": 0.9,
    "lora_dropout": 0.1,
    "num_processes": 1,
}


def of_steps(run: Run, steps: int, **options) -> Train:
    return Train(str(run.folder), **SMALL | LONGER | {"steps": steps, "replace": True} | options)


@pytest.fixture(scope="module")
def finished(new_run, prepared_tiny, train):
    """Two finished trainings of four steps, at a constant and at a falling learning rate."""
    runs = {}
    for schedule in ("constant", "cosine"):
        runs[schedule] = new_run(prepared_tiny)
        train(of_steps(runs[schedule], 4, lr_scheduler=schedule))
    return runs


def copied(run: Run, folder: Path) -> Run:
    shutil.copytree(run.folder, folder / "run", symlinks=True)
    return Run(folder / "run")


def test_more_steps_at_a_constant_rate_resume(
    finished, new_run, prepared_tiny, tmp_path, start_training, train
):
    run, uninterrupted = copied(finished["constant"], tmp_path), new_run(prepared_tiny)
    kernel = start_training(of_steps(run, 8, checkpoints_total_limit=3))
    assert kernel.wait() == 0 and "goes on from step 4 of 8" in kernel.output, kernel.output
    assert run.stage_record("train")["resumed_from"] == 4
    assert sorted(path.name for path in run.checkpoints.iterdir()) == [
        f"step-{step:07d}" for step in (4, 6, 8)
    ]
    train(of_steps(uninterrupted, 8, checkpoints_total_limit=3))
    assert uninterrupted.stage_record("train")["resumed_from"] == 0
    assert (run.adapter / LORA_FILE).read_bytes() == (
        uninterrupted.adapter / LORA_FILE
    ).read_bytes()
    fewer = start_training(of_steps(run, 6, checkpoints_total_limit=3))
    assert fewer.wait() == 0 and run.stage_record("train")["resumed_from"] == 6, fewer.output


def test_more_steps_at_a_falling_rate_need_a_named_checkpoint(finished, tmp_path, start_training):
    run = copied(finished["cosine"], tmp_path)
    wrong = start_training(
        of_steps(run, 8, lr_scheduler="cosine", rank=8, resume_from_checkpoint="step-0000002")
    )
    assert wrong.wait() != 0 and "rank was 16 and is 8; only its length" in wrong.output
    missing = start_training(
        of_steps(run, 8, lr_scheduler="cosine", resume_from_checkpoint="step-0000003")
    )
    assert missing.wait() != 0 and "there is step-0000002, step-0000004" in missing.output
    assert run.stage_record("train")["status"] == "done", "nothing has begun"
    named = start_training(
        of_steps(run, 8, lr_scheduler="cosine", resume_from_checkpoint="step-0000002")
    )
    assert named.wait() == 0, named.output
    record = run.stage_record("train")
    assert (
        record["resumed_from"] == 2
        and "steps 1 to 2 had another course of the learning rate" in record["other_rate"]
    )
    assert "steps was 4 and is 8" in named.output
    again = start_training(of_steps(run, 10, lr_scheduler="cosine"))
    assert (
        again.wait() == 0
        and "begins at step 0" in again.output
        and "'step-0000008' it goes on from there" in again.output
    )
    assert run.stage_record("train")["resumed_from"] == 0
