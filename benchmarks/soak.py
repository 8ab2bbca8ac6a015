"""A long training that is killed many times, against one that is not: adapter, files, memory.

    python benchmarks/soak.py [STEPS]     # or: make bench-soak; 2,000 steps by default

Checkpoints every 50 steps, a SIGKILL every few hundred: to one rank, to the parent, to all, in
turn. With 2,000 steps, the figures go to benchmarks/results/soak.json.
"""

import json
import random
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from statistics import median

import page
import psutil

from nbs_lib.config import Prepare, Train
from nbs_lib.config.validation import as_parameters
from nbs_lib.files import ROOT, file_hash, link, read_jsonl
from nbs_lib.models.lora.metadata import LORA_FILE
from nbs_lib.prepare import prepare
from nbs_lib.run.environment import environment
from nbs_lib.run.run import Run

FOLDER = ROOT / "outputs" / "bench-soak"
STEPS = 2000
TRAIN = """
import json, sys
from nbs_lib.config import Train
from nbs_lib.train import train
train(Train(**json.loads(sys.argv[1])))
"""


def main(steps: int):
    shutil.rmtree(FOLDER, ignore_errors=True)
    prepared = prepare(
        Prepare(str(FOLDER / "prepared"), max_examples=64, teacher_cache="data", teacher_samples=4)
    ).run
    whole, killed = (new_run(prepared, name) for name in ("whole", "killed"))
    wait_for_success(start(whole, steps))
    kills = soak(killed, steps)
    hashes = [file_hash(run.adapter / LORA_FILE) for run in (whole, killed)]
    files = [
        {str(path.relative_to(run.folder)) for path in run.folder.rglob("*")}
        for run in (whole, killed)
    ]
    figures = {
        "steps": steps,
        "kills": kills,
        "same_adapter": hashes[0] == hashes[1],
        "left_over": sorted(files[1] - files[0]),
        "memory_growth": growth(whole),
    }
    print(figures)
    if steps == STEPS:
        page.save(
            "soak", {"date": datetime.now(UTC).date().isoformat(), **environment(), **figures}
        )


def new_run(prepared: Run, name: str) -> Run:
    run = Run(FOLDER / name)
    run.folder.mkdir(parents=True)
    link(run.cache, prepared.cache.resolve())
    run.update(stages={"prepare": prepared.stage_record("prepare")})
    return run


def start(run: Run, steps: int) -> subprocess.Popen:
    every = max(1, steps // 40)
    options = {
        "mixed_precision": "bf16",
        "teacher": "cached",
        "batch_size": 2,
        "log_every": 10,
        "checkpointing_steps": every,
        "validation_steps": 0,
    }
    config = Train(str(run.folder), steps=steps, **options)
    command = [sys.executable, "-W", "ignore", "-c", TRAIN, json.dumps(as_parameters(config))]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def wait_for_success(process: subprocess.Popen):
    if code := process.wait():
        raise SystemExit(f"a training that was to end well ended with {code}")


def soak(run: Run, steps: int) -> int:
    """Train to the end with kills on the way; return the number of kills."""
    rng, kills = random.Random(0), 0
    target = 0
    while True:
        target += rng.randint(steps // 10, steps // 5)  # of two thousand: every few hundred
        process = start(run, steps)
        while process.poll() is None and (target >= steps or step_of(run) < target):
            time.sleep(0.05)
        if process.poll() is not None:
            wait_for_success(process)
            return kills
        kill(process, kills, rng)
        kills += 1


def kill(process: subprocess.Popen, number: int, rng: random.Random):
    """Send SIGKILL to one rank, to the parent, or to all."""
    parent = psutil.Process(process.pid)
    ranks = parent.children()
    for target in ([rng.choice(ranks)], [parent], [parent, *ranks])[number % 3]:
        target.kill()
    process.wait(60)
    psutil.wait_procs(ranks, 30)


def step_of(run: Run) -> int:
    lines = read_jsonl(run.metrics)
    return lines[-1]["step"] if lines else 0


def growth(run: Run) -> float:
    """Return the growth of the ranks' memory in an unbroken training: 0.02 is 2 %.

    It is measured from the second tenth of the training to the last tenth but one.
    """
    looks = [line["processes"] for line in read_jsonl(run.usage) if "processes" in line]
    sums = [
        sum(usage["memory_mib"] for usage in look if usage["rank"] != "kernel")
        for look in looks
        if len(look) == 3
    ]
    tenth = max(1, len(sums) // 10)
    return median(sums[-2 * tenth : -tenth]) / median(sums[tenth : 2 * tenth]) - 1


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else STEPS)
