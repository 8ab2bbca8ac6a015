"""Runs that are killed at random moments and resumed, against one that was not killed.

    python benchmarks/kills.py [MOMENTS]     # or: make bench-kills; 20 per ZeRO stage by default
        --kills N          kill each run N times, once in each N-th of its time (1)
        --zero-stages N,N  the ZeRO stages (0,2)

A shrunken demo in its own project, in a temporary folder, runs once from nothing to its end. Then
it runs many times more, is killed by SIGKILL at a moment drawn from its whole time (in turn: the
command's process group, every process of the run), and is resumed with `onepass resume`. ZeRO 0 and
ZeRO 2 go side by side, because most of a run keeps one core busy. Without arguments, the figures go
to benchmarks/results/kills.json. The exit status is 1 if one run ended differently.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import page
import psutil
from project import copy_project, start_options

from nbs_lib.files import file_hash
from nbs_lib.run.environment import environment
from nbs_lib.run.run import Run

MOMENTS, ZERO_STAGES, KILLS = 20, (0, 2), 1
SMALL = [
    "prepare.max_examples=16",
    "train.steps=6",
    "train.batch_size=2",
    "train.checkpointing_steps=2",
    "train.log_every=1",
]
SMALL += [
    "train.validation_examples=2",
    "train.validation_steps=3",
    'compare.prompts=["A person holding a cat"]',
]
SMALL += ["compare.steps=2", "compare.captions=2"]
NAME = "bench-kills"


def main(moments: int, kills: int, zero_stages: tuple[int, ...]):
    with (
        tempfile.TemporaryDirectory(prefix=NAME, ignore_cleanup_errors=True) as folder,
        ThreadPoolExecutor() as pool,
    ):
        runs = [
            Run(copy_project(Path(folder) / f"project-{stage}") / "outputs" / NAME)
            for stage in zero_stages
        ]
        count = len(runs)
        results = list(pool.map(run_trials, runs, zero_stages, [moments] * count, [kills] * count))
    seconds, trials = (
        [result[0] for result in results],
        [trial for result in results for trial in result[1]],
    )
    equal = sum(result["same"] and result["status"] == "done" for result in trials)
    figures = {
        "moments": len(trials),
        "zero_stages": zero_stages,
        "seconds": round(sum(seconds) / len(seconds), 1),
    }
    figures |= {"ended_the_same": equal, "trials": trials}
    if (moments, kills, zero_stages) == (MOMENTS, KILLS, ZERO_STAGES):
        page.save(
            "kills", {"date": datetime.now(UTC).date().isoformat(), **environment(), **figures}
        )
    print(f"{equal} of {len(trials)} ended done, with the hashes of the run that was not killed")
    sys.exit(equal != len(trials))


def run_trials(run: Run, stage: int, moments: int, kills: int) -> tuple[float, list[dict]]:
    """Return the seconds of an unkilled run with that ZeRO stage, and the trials."""
    rng, trials = random.Random(stage), []
    try:
        start = time.monotonic()
        wait_for_success(start_demo(run, stage))
        seconds, whole = time.monotonic() - start, hashes(run)
        cache = run.cache.resolve()
        for number in range(moments):
            delete_run(run, cache)
            times = [seconds * (part + rng.random()) / kills for part in range(kills)]
            outcome = trial(run, stage, times, first_kills_all=bool(number % 2))
            trials.append(outcome | {"same": hashes(run) == whole})
            print(trials[-1], flush=True)
    finally:
        delete_run(run, run.cache.resolve())
    return seconds, trials


def start_demo(run: Run, stage: int) -> subprocess.Popen:
    settings = [*SMALL, f"train.zero_stage={stage}"]
    return command(
        run,
        "run",
        "demo",
        "--name",
        run.name,
        *(part for setting in settings for part in ("-p", setting)),
    )


def command(run: Run, *arguments: str) -> subprocess.Popen:
    """Start `onepass` in its own process group."""
    whole = [sys.executable, "-W", "ignore", "-m", "nbs_lib", *arguments]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(
        whole, start_new_session=True, **start_options(run.folder.parent.parent), **quiet
    )


def wait_for_success(process: subprocess.Popen):
    errors = process.communicate()[1]
    if process.returncode:
        raise SystemExit(
            f"a command that was to end well ended with {process.returncode}: {errors}"
        )


def trial(run: Run, stage: int, times: list[float], first_kills_all: bool) -> dict:
    """Start a run, kill it at each of the times, resume it each time, and return the outcome.

    times: seconds of work before each kill, of all commands together; rising.
    first_kills_all: True if the first kill and every second one after it are of all processes.
    """
    kills, last, resumed = [], 0.0, False
    process = start_demo(run, stage)
    for number, moment in enumerate(times):
        kills.append(kill(process, run, moment - last, first_kills_all != bool(number % 2)))
        kills[-1] |= {"moment": round(moment, 1)}
        last = moment
        # before a run's first second is over, there is nothing to resume
        resumed = run.record.exists()
        process = command(run, "resume", run.name) if resumed else start_demo(run, stage)
    errors = process.communicate()[1]
    outcome = {"zero_stage": stage, **kills[-1], "resumed": resumed, "exit": process.returncode}
    outcome["status"] = run.read().get("status")
    if kills[:-1]:
        outcome["earlier"] = kills[:-1]
    if process.returncode:
        outcome["said"] = errors.strip()[-300:]
    return outcome


def kill(process: subprocess.Popen, run: Run, seconds: float, kill_all: bool) -> dict:
    """Kill a command after so many seconds, and return what its stages were at then.

    kill_all: also kill the kernel and the processes it started; otherwise they end by themselves.
    """
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    at = {stage: outcome.get("status") for stage, outcome in run.read().get("stages", {}).items()}
    with suppress(psutil.NoSuchProcess, ProcessLookupError):
        children = psutil.Process(process.pid).children(recursive=True) if kill_all else []
        os.killpg(process.pid, signal.SIGKILL)
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
    process.communicate()
    return {"everything": kill_all, "stages": at}


def hashes(run: Run) -> dict[str, str]:
    """Return the hashes of the weights and of every picture."""
    files = [*run.adapter.glob("*.safetensors"), *sorted((run.compare / "pictures").glob("*.png"))]
    return {str(path.relative_to(run.folder)): file_hash(path) for path in files}


def delete_run(run: Run, cache):
    """Delete a run's folder and its cache."""
    shutil.rmtree(run.folder, ignore_errors=True)
    shutil.rmtree(cache, ignore_errors=True)


def zero_stages_of(text: str) -> tuple[int, ...]:
    return tuple(int(stage) for stage in text.split(","))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("moments", nargs="?", type=int, default=MOMENTS)
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--zero-stages", type=zero_stages_of, default=ZERO_STAGES)
    main(**vars(parser.parse_args()))
