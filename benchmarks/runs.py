"""The cost of the layer of runs: `onepass run` against bare papermill, and up to 2,000 runs.

    python benchmarks/runs.py     # or: make bench-runs

Overhead: one process that calls papermill three times and `onepass run` execute the three notebooks
of a shrunken demo, in turns, each from nothing, in a separate project in a temporary folder. The
result is the medians and their difference, on the clock and in processor seconds of that process
alone, which other work on the machine does not lengthen.

Listing: such a project holds 200 and 2,000 copies of a small run's folder. The result is the time
of `onepass list` and `onepass index`, start to end, the slowest of five, and the bytes of the
index.

The figures go to benchmarks/results/runs.json.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import page
from project import copied, inside

from nbs_lib.config.validation import as_parameters
from nbs_lib.pipeline.recipes import configs
from nbs_lib.run.environment import environment
from nbs_lib.run.run import Run

ROUNDS, LISTED, RUNS = 3, 5, (200, 2000)
SMALL = [
    "prepare.max_examples=16",
    "train.steps=4",
    "train.batch_size=2",
    "train.deepspeed=false",
    "train.validation_steps=0",
]
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
from nbs_lib.cli import main
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
QUIET = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}


def main():
    with tempfile.TemporaryDirectory(prefix="bench-runs", ignore_cleanup_errors=True) as folder:
        project = copied(Path(folder) / "project")
        told = measured(project)
    page.save("runs", {"date": datetime.now(UTC).date().isoformat(), **environment(), **told})
    print(told)


def measured(project: Path) -> dict:
    bare, ours = [], []
    for _ in range(ROUNDS):
        bare.append(timed(project, bare_command))
        ours.append(timed(project, our_command))
        print(f"bare {bare[-1]}, onepass {ours[-1]}", flush=True)
    made = Run(project / "outputs" / "made")
    subprocess.run(our_command(made), **inside(project), **QUIET)
    return {
        "rounds": ROUNDS,
        "bare": bare,
        "onepass": ours,
        "overhead": {
            kind: round(
                median(each[kind] for each in ours) - median(each[kind] for each in bare), 2
            )
            for kind in bare[0]
        },
        "listed": [listing(project, made.folder, count) for count in RUNS],
    }


def timed(project: Path, command) -> dict[str, float]:
    """Time a whole run from nothing.

    Return its seconds, and the processor seconds of the process that calls papermill.
    """
    run = Run(project / "outputs" / "bench-runs")
    start = time.perf_counter()
    done = subprocess.run(command(run), **inside(project), **QUIET)
    seconds = time.perf_counter() - start
    shutil.rmtree(run.cache.resolve())
    shutil.rmtree(run.folder)
    return {"seconds": round(seconds, 2), "processor": round(float(done.stderr.split()[-1]), 2)}


def bare_command(run: Run) -> list[str]:
    stages = configs("demo", run.folder, SMALL)
    given = {run.notebook(stage).name: as_parameters(config) for stage, config in stages.items()}
    return [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        BARE,
        str(run.folder.parent.parent / "notebooks"),
        str(run.folder),
        json.dumps(given),
    ]


def our_command(run: Run) -> list[str]:
    given = [part for each in SMALL for part in ("-p", each)]
    return [sys.executable, "-W", "ignore", "-c", OURS, "run", "demo", "--name", run.name, *given]


def listing(project: Path, made: Path, count: int) -> dict:
    """Return the slowest seconds of `list` and `index`, and the bytes of the index.

    count: the copies of the run `made` that the project holds.
    """
    with tempfile.TemporaryDirectory(dir=project.parent) as folder:
        other = copied(Path(folder) / "project")
        many(made, other / "outputs", count)
        seconds = {f"{command}_seconds": asked(other, command) for command in ("list", "index")}
        return {
            "runs": count,
            **seconds,
            "index_bytes": (other / "outputs" / "index.html").stat().st_size,
        }


def many(made: Path, outputs: Path, count: int):
    """Copy a run `count` times, without the files that no listing reads."""
    for number in range(count):
        folder = outputs / f"run-{number:04}"
        shutil.copytree(made / "compare", folder / "compare")
        for name in ("run.json", "report.html", "log.txt", "thumbnail.png"):
            shutil.copy(made / name, folder / name)


def asked(project: Path, command: str) -> float:
    seconds = []
    for _ in range(LISTED):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "nbs_lib", command], **inside(project), **QUIET)
        seconds.append(time.perf_counter() - start)
    return round(max(seconds), 2)


if __name__ == "__main__":
    main()
