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
from project import copied, inside

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
            Run(copied(Path(folder) / f"project-{stage}") / "outputs" / NAME)
            for stage in ZERO_STAGES
        ]
        done = list(pool.map(killed, runs, ZERO_STAGES, [moments] * len(runs)))
    seconds, trials = [each[0] for each in done], [trial for each in done for trial in each[1]]
    good = sum(each["same"] and each["status"] == "done" for each in trials)
    told = {
        "moments": len(trials),
        "zero_stages": ZERO_STAGES,
        "seconds": round(sum(seconds) / len(seconds), 1),
    }
    told |= {"ended_the_same": good, "trials": trials}
    if moments == MOMENTS:
        page.save("kills", {"date": datetime.now(UTC).date().isoformat(), **environment(), **told})
    print(f"{good} of {len(trials)} ended done, with the hashes of the run that was not killed")
    sys.exit(good != len(trials))


def killed(run: Run, stage: int, moments: int) -> tuple[float, list[dict]]:
    """Return the seconds of an unkilled run with that ZeRO stage, and the trials."""
    chance, trials = random.Random(stage), []
    try:
        start = time.monotonic()
        finished(begin(run, stage))
        seconds, whole = time.monotonic() - start, hashes(run)
        kept = run.cache.resolve()
        for number in range(moments):
            clear(run, kept)
            told = trial(run, stage, chance.uniform(0, seconds), everything=bool(number % 2))
            trials.append(told | {"same": hashes(run) == whole})
            print(trials[-1], flush=True)
    finally:
        clear(run, run.cache.resolve())
    return seconds, trials


def begin(run: Run, stage: int) -> subprocess.Popen:
    given = [*SMALL, f"train.zero_stage={stage}"]
    return command(
        run, "run", "demo", "--name", run.name, *(part for each in given for part in ("-p", each))
    )


def command(run: Run, *arguments: str) -> subprocess.Popen:
    """Start `onepass` in its own process group."""
    whole = [sys.executable, "-W", "ignore", "-m", "nbs_lib", *arguments]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(
        whole, start_new_session=True, **inside(run.folder.parent.parent), **quiet
    )


def finished(process: subprocess.Popen):
    said = process.communicate()[1]
    if process.returncode:
        raise SystemExit(f"a command that was to end well ended with {process.returncode}: {said}")


def trial(run: Run, stage: int, moment: float, everything: bool) -> dict:
    """Start a run, kill it at the moment, resume it, and return the outcome.

    everything: also kill the kernel and the processes it started; otherwise they end by themselves.
    """
    process = begin(run, stage)
    with suppress(subprocess.TimeoutExpired):
        process.wait(moment)
    at = {stage: told.get("status") for stage, told in run.read().get("stages", {}).items()}
    with suppress(psutil.NoSuchProcess, ProcessLookupError):
        below = psutil.Process(process.pid).children(recursive=True) if everything else []
        os.killpg(process.pid, signal.SIGKILL)
        for each in below:
            with suppress(psutil.NoSuchProcess):
                each.kill()
    process.communicate()
    known = run.record.exists()  # before its first second is over, there is nothing to resume
    again = command(run, "resume", run.name) if known else begin(run, stage)
    said = again.communicate()[1]
    told = {"zero_stage": stage, "moment": round(moment, 1), "everything": everything, "stages": at}
    told |= {"resumed": known, "exit": again.returncode}
    return (
        told
        | {"status": run.read().get("status")}
        | ({"said": said.strip()[-300:]} if again.returncode else {})
    )


def hashes(run: Run) -> dict[str, str]:
    """Return the hashes of the weights and of every picture."""
    files = [*run.adapter.glob("*.safetensors"), *sorted((run.compare / "pictures").glob("*.png"))]
    return {str(path.relative_to(run.folder)): file_hash(path) for path in files}


def clear(run: Run, cache):
    """Delete a run's folder and its cache."""
    shutil.rmtree(run.folder, ignore_errors=True)
    shutil.rmtree(cache, ignore_errors=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else MOMENTS)
