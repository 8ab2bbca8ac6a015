"""A run that is killed, with all its processes, at a random moment, and resumed: does it end as if nothing had been?

    python benchmarks/kills.py [MOMENTS]     # or: make bench-kills; 20 unless told

A shrunken demo, once from nothing to its end, then again and again: killed by SIGKILL at a moment drawn from the whole of its
time, the command's process group alone or every process of it in turn, then `onepass resume`. The figures go to
benchmarks/results/kills.json, where the moments are 20. Status 1 where one of them did not end as it should.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime

import page
import psutil

from nbs_lib.files import ROOT, file_hash
from nbs_lib.machine import facts
from nbs_lib.run import Run

MOMENTS = 20
SMALL = ["prepare.count=16", "train.steps=6", "train.batch_size=2", "train.checkpoint_every=2", "train.log_every=1"]
SMALL += ["train.held_out=2", "train.validate_every=3", 'compare.prompts=["A person holding a cat"]']
SMALL += ["compare.steps=2", "compare.captions=2"]
NAME = f"bench-kills-{os.getpid()}"


def main(moments: int):
    run = Run(ROOT / "outputs" / NAME)
    try:
        start = time.monotonic()
        finished(begin(run))
        seconds, whole = time.monotonic() - start, hashes(run)
        kept = run.cache.resolve()
        chance, trials = random.Random(0), []
        for number in range(moments):
            clear(run, kept)
            trials.append(trial(run, chance.uniform(0, seconds), everything=bool(number % 2)))
            trials[-1]["same"] = hashes(run) == whole
            print(trials[-1], flush=True)
    finally:
        clear(run, run.cache.resolve())
    good = sum(each["same"] and each["status"] == "done" for each in trials)
    told = {"moments": moments, "seconds": round(seconds, 1), "ended_the_same": good, "trials": trials}
    if moments == MOMENTS:
        page.save("kills", {"date": datetime.now(UTC).date().isoformat(), **facts(), **told})
    print(f"{good} of {moments} ended done, with the hashes of the run that was not killed")
    sys.exit(good != moments)


def begin(run: Run) -> subprocess.Popen:
    return command("run", "demo", "--name", run.name, *(part for each in SMALL for part in ("-p", each)))


def command(*arguments: str) -> subprocess.Popen:
    """`onepass`, which leads a process group of its own."""
    whole = [sys.executable, "-W", "ignore", "-m", "nbs_lib", *arguments]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(whole, cwd=ROOT, start_new_session=True, **quiet)


def finished(process: subprocess.Popen):
    said = process.communicate()[1]
    if process.returncode:
        raise SystemExit(f"a command that was to end well ended with {process.returncode}: {said}")


def trial(run: Run, moment: float, everything: bool) -> dict:
    """Begin, kill at the moment, resume. everything: the kernel and what it started too, which else end by themselves."""
    process = begin(run)
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
    again = command("resume", run.name) if known else begin(run)
    said = again.communicate()[1]
    told = {"moment": round(moment, 1), "everything": everything, "stages": at, "resumed": known, "exit": again.returncode}
    return told | {"status": run.read().get("status")} | ({"said": said.strip()[-300:]} if again.returncode else {})


def hashes(run: Run) -> dict[str, str]:
    """Of the weights and of every picture."""
    files = [*run.adapter.glob("*.safetensors"), *sorted((run.compare / "pictures").glob("*.png"))]
    return {str(path.relative_to(run.folder)): file_hash(path) for path in files}


def clear(run: Run, cache):
    """Nothing of a run is there: neither its folder nor its cache."""
    shutil.rmtree(run.folder, ignore_errors=True)
    shutil.rmtree(cache, ignore_errors=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else MOMENTS)
