"""Runs that are killed at random moments and resumed, against one that was not killed.

    python benchmarks/kills.py [MOMENTS]     # or: make bench-kills; 20 per ZeRO stage by default

A shrunken demo in its own project, in a temporary folder, runs once from nothing to its end. Then
it runs many times more, is killed by SIGKILL at a moment drawn from its whole time (in turn: the
command's process group, every process of the run), and is resumed with `onepass resume`. ZeRO 0 and
ZeRO 2 go side by side, because most of a run keeps one core busy. With 20 moments for each stage,
the figures go to benchmarks/results/kills.json. The exit status is 1 if one run ended differently.
"""

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

MOMENTS, ZERO_STAGES = 20, (0, 2)
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


def main(moments: int):
    with (
        tempfile.TemporaryDirectory(prefix=NAME, ignore_cleanup_errors=True) as folder,
        ThreadPoolExecutor() as pool,
    ):
        runs = [
            Run(copy_project(Path(folder) / f"project-{stage}") / "outputs" / NAME)
            for stage in ZERO_STAGES
        ]
        results = list(pool.map(run_trials, runs, ZERO_STAGES, [moments] * len(runs)))
    seconds, trials = (
        [result[0] for result in results],
        [trial for result in results for trial in result[1]],
    )
    equal = sum(result["same"] and result["status"] == "done" for result in trials)
    figures = {
        "moments": len(trials),
        "zero_stages": ZERO_STAGES,
        "seconds": round(sum(seconds) / len(seconds), 1),
    }
    figures |= {"ended_the_same": equal, "trials": trials}
    if moments == MOMENTS:
        page.save(
            "kills", {"date": datetime.now(UTC).date().isoformat(), **environment(), **figures}
        )
    print(f"{equal} of {len(trials)} ended done, with the hashes of the run that was not killed")
    sys.exit(equal != len(trials))


def run_trials(run: Run, stage: int, moments: int) -> tuple[float, list[dict]]:
    """Return the seconds of an unkilled run with that ZeRO stage, and the trials."""
    rng, trials = random.Random(stage), []
    try:
        start = time.monotonic()
        wait_for_success(start_demo(run, stage))
        seconds, whole = time.monotonic() - start, hashes(run)
        cache = run.cache.resolve()
        for number in range(moments):
            delete_run(run, cache)
            outcome = trial(run, stage, rng.uniform(0, seconds), kill_all=bool(number % 2))
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


def trial(run: Run, stage: int, moment: float, kill_all: bool) -> dict:
    """Start a run, kill it at the moment, resume it, and return the outcome.

    kill_all: also kill the kernel and the processes it started; otherwise they end by themselves.
    """
    process = start_demo(run, stage)
    with suppress(subprocess.TimeoutExpired):
        process.wait(moment)
    at = {stage: outcome.get("status") for stage, outcome in run.read().get("stages", {}).items()}
    with suppress(psutil.NoSuchProcess, ProcessLookupError):
        children = psutil.Process(process.pid).children(recursive=True) if kill_all else []
        os.killpg(process.pid, signal.SIGKILL)
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
    process.communicate()
    resumed = run.record.exists()  # before its first second is over, there is nothing to resume
    resume = command(run, "resume", run.name) if resumed else start_demo(run, stage)
    errors = resume.communicate()[1]
    outcome = {
        "zero_stage": stage,
        "moment": round(moment, 1),
        "everything": kill_all,
        "stages": at,
    }
    outcome |= {"resumed": resumed, "exit": resume.returncode}
    return (
        outcome
        | {"status": run.read().get("status")}
        | ({"said": errors.strip()[-300:]} if resume.returncode else {})
    )


def hashes(run: Run) -> dict[str, str]:
    """Return the hashes of the weights and of every picture."""
    files = [*run.adapter.glob("*.safetensors"), *sorted((run.compare / "pictures").glob("*.png"))]
    return {str(path.relative_to(run.folder)): file_hash(path) for path in files}


def delete_run(run: Run, cache):
    """Delete a run's folder and its cache."""
    shutil.rmtree(run.folder, ignore_errors=True)
    shutil.rmtree(cache, ignore_errors=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else MOMENTS)
