"""Trainings that go on from a checkpoint: from a damaged one, and from one that somebody else wrote."""

import json
import pickle
import shutil
from pathlib import Path

import pytest

from nbs_lib.config import Train
from nbs_lib.files import file_hash, value_hash
from nbs_lib.models.lora import LORA_FILE
from nbs_lib.run.run import Run
from nbs_lib.train.checkpoint.checkpoint import NOTE, SHARED

pytestmark = pytest.mark.slow

SMALL = {
    "steps": 6,
    "batch_size": 1,
    "log_every": 1,
    "checkpointing_steps": 2,
    "validation_steps": 0,
}
WAYS = {
    "plain": {"deepspeed": False, "ema_decay": 0.9, "lora_dropout": 0.1},
    "ZeRO 0": {"zero_stage": 0, "ema_decay": 0.9, "optimizer": "prodigy", "learning_rate": 1.0},
    "ZeRO 2": {
        "zero_stage": 2,
        "ema_decay": 0.9,
        "lora_dropout": 0.1,
        "gradient_accumulation_steps": 2,
    },
    "ZeRO 3": {"zero_stage": 3},
    "ZeRO 1, offloaded": {"zero_stage": 1, "offload": True, "mixed_precision": "fp32"},
}


@pytest.fixture(scope="module")
def whole(new_run, prepared_tiny, train):
    """`whole(way)`: a training that was never interrupted; each is trained once."""
    made: dict[str, Run] = {}

    def call(way: str) -> Run:
        if way not in made:
            made[way] = new_run(prepared_tiny)
            train(config_of(way, made[way]))
        return made[way]

    return call


def config_of(way: str, run: Run) -> Train:
    return Train(str(run.folder), **SMALL | WAYS[way])


def unfinished(run: Run, place: Path) -> Run:
    """A copy of a trained run with both of its checkpoints, as if its end had never come."""
    other = Run(place / "run")
    shutil.copytree(run.folder, other.folder, symlinks=True)
    shutil.rmtree(other.adapter)
    other.update_stage("train", status="interrupted")
    return other


def resumed(start_training, way: str, run: Run) -> str:
    """Train to the end; return what was said."""
    kernel = start_training(config_of(way, run))
    assert kernel.wait() == 0, kernel.said
    return kernel.said


@pytest.mark.parametrize(
    "way", ["ZeRO 0", "ZeRO 1, offloaded", "ZeRO 3"]
)  # the others are resumed below
def test_it_ends_in_the_same_adapter(whole, interrupted, start_training, way):
    again = interrupted(whole(way))
    resumed(start_training, way, again)
    assert again.stage_record("train")["resumed_from"] == 4
    assert (again.adapter / LORA_FILE).read_bytes() == (whole(way).adapter / LORA_FILE).read_bytes()


@pytest.mark.parametrize(
    ("way", "damaged"), [("plain", SHARED), ("ZeRO 2", "process-1.safetensors")]
)
def test_a_damaged_checkpoint_is_passed_over_with_a_word_and_the_one_before_it_is_used(
    whole, tmp_path, start_training, way, damaged
):
    run = unfinished(whole(way), tmp_path)
    newest = run.checkpoints / "step-0000006"
    content = bytearray((newest / damaged).read_bytes())
    content[-40:-36] = bytes(
        255 - each for each in content[-40:-36]
    )  # four bytes, and the size is as before
    (newest / damaged).write_bytes(content)
    said = resumed(start_training, way, run)
    assert f"{newest} is damaged and passed over: ValueError: {damaged}" in said
    assert run.stage_record("train")["resumed_from"] == 4
    assert (run.adapter / LORA_FILE).read_bytes() == (whole(way).adapter / LORA_FILE).read_bytes()


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
    note = json.loads((checkpoint / NOTE).read_text())
    del note["hash"]
    paths = [path for path in checkpoint.rglob("*") if path.is_file() and path.name != NOTE]
    note["files"] = {
        str(path.relative_to(checkpoint)): {"bytes": path.stat().st_size, "sha256": file_hash(path)}
        for path in paths
    }
    (checkpoint / NOTE).write_text(json.dumps(note | {"hash": value_hash(note)}))


EARLIER = ["optimizer.bin", "custom_checkpoint_0.pkl", "random_states_0.pkl", "latest"]
EARLIER += [
    "pytorch_model/mp_rank_00_model_states.pt",
    "pytorch_model/zero_pp_rank_0_mp_rank_00_optim_states.pt",
]


@pytest.mark.parametrize("way", ["plain", "ZeRO 0", "ZeRO 2"])
def test_no_pickle_of_a_checkpoint_is_ever_loaded(whole, tmp_path, start_training, way):
    run, marker = unfinished(whole(way), tmp_path), tmp_path / "was here"
    pickle.loads(pickle.dumps(Malicious(marker)))
    assert marker.exists(), "so they do what they are to do"
    marker.unlink()
    last, before = run.checkpoints / "step-0000006", run.checkpoints / "step-0000004"
    poison(last, [SHARED], marker)
    poison(
        before, [path.name for path in before.iterdir() if path.name.startswith("process-")], marker
    )
    for folder in (last, before):
        poison(folder, ["optimizer.bin"], marker)  # flat, so that the note can list it
    said = resumed(start_training, way, run)
    assert not marker.exists()
    assert (
        f"{last} is damaged and passed over" in said
        and f"{before} is damaged and passed over" in said
    )
    assert run.stage_record("train")["resumed_from"] == 0
    assert (run.adapter / LORA_FILE).read_bytes() == (whole(way).adapter / LORA_FILE).read_bytes()


def test_a_checkpoint_of_an_earlier_version_is_refused_in_a_sentence_and_not_opened(
    whole, tmp_path, start_training
):
    run, marker = unfinished(whole("plain"), tmp_path), tmp_path / "was here"
    shutil.rmtree(run.checkpoints / "step-0000006")
    folder = run.checkpoints / "step-0000004"
    poison(folder, EARLIER, marker)
    note = json.loads((folder / NOTE).read_text())
    earlier = {name: note[name] for name in ("step", "inputs", "parameters")}
    earlier["files"] = {name: told["bytes"] for name, told in note["files"].items()}
    (folder / NOTE).write_text(json.dumps(earlier))
    kernel = start_training(config_of("plain", run))
    assert kernel.wait() != 0 and not marker.exists() and folder.exists()
    assert all(
        said in kernel.said
        for said in ("CheckpointError", "earlier version", f"remove {run.checkpoints} to start")
    )


LONGER = {
    "deepspeed": False,
    "lr_scheduler": "constant",
    "lr_warmup_steps": 3,
    "ema_decay": 0.9,
    "lora_dropout": 0.1,
    "num_processes": 1,
}


def of_steps(run: Run, steps: int, **how) -> Train:
    return Train(str(run.folder), **SMALL | LONGER | {"steps": steps, "replace": True} | how)


@pytest.fixture(scope="module")
def finished(new_run, prepared_tiny, train):
    """Two finished trainings: of four steps at a constant learning rate, and of four at a falling one."""
    runs = {}
    for schedule in ("constant", "cosine"):
        runs[schedule] = new_run(prepared_tiny)
        train(of_steps(runs[schedule], 4, lr_scheduler=schedule))
    return runs


def copied(run: Run, place: Path) -> Run:
    shutil.copytree(run.folder, place / "run", symlinks=True)
    return Run(place / "run")


def test_more_steps_at_a_constant_rate_go_on_and_end_as_from_the_beginning(finished, new_run, prepared_tiny, tmp_path,
                                                                          start_training, train):  # fmt: skip
    run, whole = copied(finished["constant"], tmp_path), new_run(prepared_tiny)
    kernel = start_training(of_steps(run, 8, checkpoints_total_limit=3))
    assert kernel.wait() == 0 and "goes on from step 4 of 8" in kernel.said, kernel.said
    assert run.stage_record("train")["resumed_from"] == 4
    assert sorted(path.name for path in run.checkpoints.iterdir()) == [
        f"step-{step:07d}" for step in (4, 6, 8)
    ]
    train(of_steps(whole, 8, checkpoints_total_limit=3))
    assert whole.stage_record("train")["resumed_from"] == 0
    assert (run.adapter / LORA_FILE).read_bytes() == (whole.adapter / LORA_FILE).read_bytes()
    fewer = start_training(of_steps(run, 6, checkpoints_total_limit=3))
    assert fewer.wait() == 0 and run.stage_record("train")["resumed_from"] == 6, fewer.said


def test_more_steps_at_a_falling_rate_begin_again_and_say_so_unless_a_checkpoint_is_named(
    finished, tmp_path, start_training
):
    run = copied(finished["cosine"], tmp_path)
    wrong = start_training(
        of_steps(run, 8, lr_scheduler="cosine", rank=8, resume_from_checkpoint="step-0000002")
    )
    assert wrong.wait() != 0 and "rank was 16 and is 8; only its length" in wrong.said
    missing = start_training(
        of_steps(run, 8, lr_scheduler="cosine", resume_from_checkpoint="step-0000003")
    )
    assert missing.wait() != 0 and "there is step-0000002, step-0000004" in missing.said
    assert run.stage_record("train")["status"] == "done", "nothing has begun"
    named = start_training(
        of_steps(run, 8, lr_scheduler="cosine", resume_from_checkpoint="step-0000002")
    )
    assert named.wait() == 0, named.said
    record = run.stage_record("train")
    assert (
        record["resumed_from"] == 2
        and "steps 1 to 2 had another course of the learning rate" in record["other_rate"]
    )
    assert "steps was 4 and is 8" in named.said
    again = start_training(of_steps(run, 10, lr_scheduler="cosine"))
    assert (
        again.wait() == 0
        and "begins at step 0" in again.said
        and "'step-0000008' it goes on from there" in again.said
    )
    assert run.stage_record("train")["resumed_from"] == 0
