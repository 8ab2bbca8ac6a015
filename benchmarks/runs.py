"""What the layer of runs costs: `onepass run` against bare papermill with the same notebooks, and 200 runs in outputs/.

    python benchmarks/runs.py     # or: make bench-runs

Overhead: the three notebooks of a shrunken demo, by one process that calls papermill three times and by `onepass run`, in
turns, each from nothing; the medians and their difference, on the clock and in processor seconds of that process alone, which
other work on the machine does not lengthen. Listing: 200 copies of a small run's folder in a project of its own;
`onepass list` and `onepass index`, start to end, the slowest of five. The figures go to benchmarks/results/runs.json.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import page

from nbs_lib.files import ROOT
from nbs_lib.machine import facts
from nbs_lib.parameters import as_parameters
from nbs_lib.pipeline.recipes import configs
from nbs_lib.run import Run

ROUNDS, LISTED, RUNS = 3, 5, 200
SMALL = ["prepare.count=16", "train.steps=4", "train.batch_size=2", "train.deepspeed=false", "train.validate_every=0"]
SMALL += ['compare.prompts=["A person holding a cat"]', "compare.steps=2", "compare.captions=2"]
TELL = """
import atexit, resource, sys
def tell():
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(used.ru_utime + used.ru_stime, file=sys.stderr)
atexit.register(tell)
"""
OURS = (
    TELL
    + """
from nbs_lib.commands import main
main()
"""
)
BARE = (
    TELL
    + """
import json
from pathlib import Path
import papermill
notebooks, folder = Path(sys.argv[1]), Path(sys.argv[2])
folder.mkdir(parents=True)
how = {"kernel_name": "python3", "cwd": notebooks, "progress_bar": False}
for name, parameters in json.loads(sys.argv[3]).items():
    papermill.execute_notebook(notebooks / name, folder / name, parameters, **how)
"""
)
QUIET = {"cwd": ROOT, "check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}


def main():
    bare, ours = [], []
    for _ in range(ROUNDS):
        bare.append(timed(bare_command))
        ours.append(timed(our_command))
        print(f"bare {bare[-1]}, onepass {ours[-1]}", flush=True)
    made = Run(ROOT / "outputs" / f"bench-runs-made-{os.getpid()}")
    try:
        subprocess.run(our_command(made), **QUIET)
        listed = listing(made.folder)
    finally:
        clear(made)
    told = {
        "rounds": ROUNDS,
        "bare": bare,
        "onepass": ours,
        "overhead": {
            kind: round(median(each[kind] for each in ours) - median(each[kind] for each in bare), 2) for kind in bare[0]
        },
        **listed,
    }
    page.save("runs", {"date": datetime.now(UTC).date().isoformat(), **facts(), **told})
    print(told)


def timed(command) -> dict[str, float]:
    """Of a whole run from nothing the seconds, and the processor seconds of the process that calls papermill."""
    run = Run(ROOT / "outputs" / f"bench-runs-{os.getpid()}")
    try:
        start = time.perf_counter()
        done = subprocess.run(command(run), **QUIET)
        seconds = time.perf_counter() - start
        return {"seconds": round(seconds, 2), "processor": round(float(done.stderr.split()[-1]), 2)}
    finally:
        clear(run)


def clear(run: Run):
    if run.cache.exists():
        shutil.rmtree(run.cache.resolve())
    shutil.rmtree(run.folder, ignore_errors=True)


def bare_command(run: Run) -> list[str]:
    stages = configs("demo", run.folder, SMALL)
    given = {run.notebook(stage).name: as_parameters(config) for stage, config in stages.items()}
    return [sys.executable, "-W", "ignore", "-c", BARE, str(ROOT / "notebooks"), str(run.folder), json.dumps(given)]


def our_command(run: Run) -> list[str]:
    given = [part for each in SMALL for part in ("-p", each)]
    return [sys.executable, "-W", "ignore", "-c", OURS, "run", "demo", "--name", run.name, *given]


def listing(made: Path) -> dict:
    """Seconds of `list` and of `index`, at the slowest, with so many copies of a run's folder."""
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        ignored = shutil.ignore_patterns("__pycache__", "base")
        shutil.copytree(ROOT / "nbs_lib", project / "nbs_lib", ignore=ignored)
        many(made, project / "outputs")
        return {"runs": RUNS, "list_seconds": asked(project, "list"), "index_seconds": asked(project, "index")}


def many(made: Path, outputs: Path):
    """A run as often as that, without what no listing reads."""
    for number in range(RUNS):
        folder = outputs / f"run-{number:03}"
        shutil.copytree(made / "compare", folder / "compare")
        for name in ("run.json", "report.html", "log.txt", "thumbnail.png"):
            shutil.copy(made / name, folder / name)


def asked(project: Path, command: str) -> float:
    seconds = []
    for _ in range(LISTED):
        start = time.perf_counter()
        environment = {**os.environ, "PYTHONPATH": str(project)}
        subprocess.run([sys.executable, "-m", "nbs_lib", command], **(QUIET | {"cwd": project, "env": environment}))
        seconds.append(time.perf_counter() - start)
    return round(max(seconds), 2)


if __name__ == "__main__":
    main()
