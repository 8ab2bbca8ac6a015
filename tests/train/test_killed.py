"""Trainings that are killed, by SIGKILL, at random moments, and whose disk is full."""

import json
import random
import re
import subprocess
import sys
import time

import psutil
import pytest

from nbs_lib.adapter import WEIGHTS
from nbs_lib.config import Prepare, Train
from nbs_lib.files import ROOT, read_lines
from nbs_lib.parameters import as_parameters
from nbs_lib.prepare import prepare
from nbs_lib.run import Run
from nbs_lib.train.checkpoint import latest

TRAIN = """
import sys, json
from nbs_lib.config import Train
from nbs_lib.train import train
train(Train(**json.loads(sys.argv[1])))
"""
STEPS, KILLS = 24, 5


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Run:
    return prepare(Prepare(str(tmp_path_factory.mktemp("runs") / "prepared"), count=16)).run


def a_run(prepared: Run, name: str) -> Run:
    run = Run(prepared.folder.parent / name)
    run.folder.mkdir()
    run.cache.symlink_to(prepared.cache.resolve())
    run.update(stages={"prepare": prepared.stage_record("prepare")})
    return run


def start(run: Run, **how) -> subprocess.Popen:
    """A training with a checkpoint after every step: as often as not, one is being written."""
    small = {"steps": STEPS, "batch_size": 1, "log_every": 1, "checkpoint_every": 1, "validate_every": 0}
    config = Train(str(run.folder), **small | how)
    command = [sys.executable, "-W", "ignore", "-c", TRAIN, json.dumps(as_parameters(config))]
    with (run.folder / "said").open("a") as said:
        return subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=said, start_new_session=True)


def newest_step(run: Run) -> int:
    return max((int(path.name.removeprefix("step-")) for path in run.checkpoints.glob("step-*")), default=0)


def kill(process: subprocess.Popen, whom: str, chance: random.Random):
    """SIGKILL to one rank, to the parent or to all of them; all are gone soon after."""
    parent = psutil.Process(process.pid)
    ranks = parent.children()
    doomed = {"a rank": [chance.choice(ranks)], "the parent": [parent], "all": [parent, *ranks]}[whom]
    for each in doomed:
        each.kill()
    process.wait(60)
    _, alive = psutil.wait_procs(ranks, 10)
    assert not alive


@pytest.mark.parametrize("zero_stage", [0, 2])
def test_killed_at_random_moments_it_ends_in_the_same_adapter(prepared, zero_stage):
    chance = random.Random(zero_stage)
    whole, killed = (a_run(prepared, f"{name} {zero_stage}") for name in ("whole", "killed"))
    assert start(whole, zero_stage=zero_stage).wait(240) == 0, (whole.folder / "said").read_text()
    kills = 0
    while kills < KILLS:
        process, before = start(killed, zero_stage=zero_stage), newest_step(killed)
        while process.poll() is None and newest_step(killed) < before + chance.randint(1, 3):
            time.sleep(0.002)
        time.sleep(chance.random() * 0.2)
        if process.poll() is None:
            kill(process, ["a rank", "the parent", "all"][kills % 3], chance)
            kills += 1
        assert not killed.adapter.exists(), "it was through before it was killed often enough"
    assert start(killed, zero_stage=zero_stage).wait(240) == 0, (killed.folder / "said").read_text()
    record = killed.stage_record("train")
    assert record["status"] == "done" and record["resumed_from"] >= KILLS
    assert (killed.adapter / WEIGHTS).read_bytes() == (whole.adapter / WEIGHTS).read_bytes()
    assert [line["step"] for line in read_lines(killed.metrics)] == list(range(1, STEPS + 1))
    assert {path.name for path in killed.folder.rglob("*")} == {path.name for path in whole.folder.rglob("*")}


def test_a_full_disk_ends_it_in_a_sentence_and_the_checkpoint_before_is_good(prepared, small_disk):
    run = Run(small_disk / "rün")
    run.folder.mkdir()
    run.cache.symlink_to(prepared.cache.resolve())
    run.update(stages={"prepare": prepared.stage_record("prepare")})
    process = start(run, processes=1, steps=200)
    while newest_step(run) < 2:
        assert process.poll() is None, (run.folder / "said").read_text()
        time.sleep(0.01)
    filler = small_disk / "filler"
    with filler.open("wb") as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(1 << 16))
            file.flush()
    assert process.wait(120) != 0
    filler.unlink()
    record = run.stage_record("train")
    assert record["status"] == "failed", (run.folder / "said").read_text()
    assert re.search("make room and start again|No space left on device", record["error"]), record["error"]
    last = newest_step(run)
    inputs = json.loads((run.checkpoints / f"step-{last:07d}" / "checkpoint.json").read_text())["inputs"]
    assert latest(run.checkpoints, inputs).step == last >= 2
    process = start(run, processes=1, steps=200)
    while newest_step(run) <= last:
        assert process.poll() is None, (run.folder / "said").read_text()
        time.sleep(0.01)
    kill(process, "all", random.Random(0))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 24 MiB; skipped where none can be mounted."""
    folder = tmp_path / "small disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)
