"""Trainings that are killed, by SIGKILL, at random moments, and whose disk is full."""

import json
import random
import re
import time

import psutil
import pytest

from nbs_lib.config import Train
from nbs_lib.files import read_jsonl
from nbs_lib.models.lora.metadata import LORA_FILE
from nbs_lib.run.run import Run
from nbs_lib.train.checkpoint.resume import candidates

pytestmark = pytest.mark.slow

STEPS, KILLS = 26, 3
SCHEDULE = {
    "lr_scheduler": "cosine_with_restarts",
    "lr_num_cycles": 3,
    "adam_beta1": 0.8,
    "adam_weight_decay": 0.1,
}


def every_step(run: Run, **options) -> Train:
    """A training with a checkpoint after every step: as often as not, one is being written."""
    small = {
        "steps": STEPS,
        "batch_size": 1,
        "log_every": 1,
        "checkpointing_steps": 1,
        "validation_steps": 0,
    }
    return Train(str(run.folder), **small | {"mixed_precision": "bf16"} | options)


def newest_step(run: Run) -> int:
    return max(
        (int(path.name.removeprefix("step-")) for path in run.checkpoints.glob("step-*")), default=0
    )


def kill(kernel, whom: str, chance: random.Random):
    """SIGKILL to one rank, to the parent or to all of them; all are gone soon after."""
    parent = psutil.Process(kernel.pid)
    ranks = parent.children()
    doomed = {"a rank": [chance.choice(ranks)], "the parent": [parent], "all": [parent, *ranks]}[
        whom
    ]
    for victim in doomed:
        victim.kill()
    kernel.wait(60)
    _, alive = psutil.wait_procs(ranks, 10)
    assert not alive


@pytest.mark.parametrize(
    "options",
    [
        {"zero_stage": 0},
        {
            "zero_stage": 2,
            "lora_dropout": 0.1,
            "ema_decay": 0.9,
            "gradient_accumulation_steps": 2,
            "validation_steps": 5,
            "validation_examples": 4,
        }
        | SCHEDULE,
    ],
    ids=["ZeRO 0", "ZeRO 2, with every state"],
)
def test_a_training_killed_at_random_moments_ends_in_the_same_adapter(
    new_run, prepared_tiny, start_training, train, options
):
    # other moments at each stage
    chance = random.Random(options["zero_stage"])
    uninterrupted, killed = new_run(prepared_tiny), new_run(prepared_tiny)
    train(every_step(uninterrupted, **options))
    kills = 0
    while kills < KILLS:
        kernel, before = start_training(every_step(killed, **options)), newest_step(killed)
        while kernel.poll() is None and newest_step(killed) < before + chance.randint(1, 3):
            time.sleep(0.002)
        time.sleep(chance.random() * 0.2)
        if kernel.poll() is None:
            kill(kernel, ["a rank", "the parent", "all"][kills % 3], chance)
            kills += 1
        assert not killed.adapter.exists(), "it was through before it was killed often enough"
    (killed.checkpoints / ".step-0000099.part").mkdir()
    assert killed.stage_record("train")["status"] == "running"
    train(every_step(killed, **options))
    record = killed.stage_record("train")
    assert record["status"] == "done" and record["resumed_from"] >= KILLS
    assert (killed.adapter / LORA_FILE).read_bytes() == (
        uninterrupted.adapter / LORA_FILE
    ).read_bytes()
    assert steps_of(killed, "loss") == list(range(1, STEPS + 1))
    for name in ("held_out_loss", "best_step"):
        assert steps_of(killed, name) == steps_of(uninterrupted, name)
    assert record["weights_source"] == uninterrupted.stage_record("train")["weights_source"]
    assert {path.name for path in killed.folder.rglob("*")} == {
        path.name for path in uninterrupted.folder.rglob("*")
    }


def steps_of(run: Run, name: str) -> list[int]:
    """The steps of the lines of metrics.jsonl that have this number."""
    return [line["step"] for line in read_jsonl(run.metrics) if name in line]


def test_a_full_disk_is_reported_and_the_checkpoint_before_is_good(
    new_run, prepared_tiny, start_training, small_disk
):
    run = new_run(prepared_tiny, folder=small_disk / "rün")
    config = every_step(run, num_processes=1, steps=200)
    kernel = start_training(config)
    while newest_step(run) < 2:
        assert kernel.poll() is None, kernel.output
        time.sleep(0.01)
    filler = small_disk / "filler"
    with filler.open("wb") as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(1 << 16))
            file.flush()
    assert kernel.wait(120) != 0
    filler.unlink()
    record = run.stage_record("train")
    assert record["status"] == "failed", kernel.output
    assert re.search("make room and start again|No space left on device", record["error"]), record[
        "error"
    ]
    last = newest_step(run)
    inputs = json.loads((run.checkpoints / f"step-{last:07d}" / "checkpoint.json").read_text())[
        "inputs"
    ]
    assert candidates(run.checkpoints, inputs, config)[0].step == last >= 2
    kernel = start_training(config)
    while newest_step(run) <= last:
        assert kernel.poll() is None, kernel.output
        time.sleep(0.01)
    kill(kernel, "all", random.Random(0))
