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
from project import copy_project, start_options

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
options = {"kernel_name": "python3", "cwd": notebooks, "progress_bar": False}
for name, parameters in json.loads(sys.argv[3]).items():
    papermill.execute_notebook(notebooks / name, folder / name, parameters, **options)
"""
)
QUIET = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}


def main():
    with tempfile.TemporaryDirectory(prefix="bench-runs", ignore_cleanup_errors=True) as folder:
        project = copy_project(Path(folder) / "project")
        figures = measure(project)
    page.save("runs", {"date": datetime.now(UTC).date().isoformat(), **environment(), **figures})
    print(figures)


def measure(project: Path) -> dict:
    bare, ours = [], []
    for _ in range(ROUNDS):
        bare.append(time_run(project, bare_command))
        ours.append(time_run(project, our_command))
        print(f"bare {bare[-1]}, onepass {ours[-1]}", flush=True)
    template = Run(project / "outputs" / "made")
    subprocess.run(our_command(template), **start_options(project), **QUIET)
    return {
        "rounds": ROUNDS,
        "bare": bare,
        "onepass": ours,
        "overhead": {
            kind: round(
                median(times[kind] for times in ours) - median(times[kind] for times in bare), 2
            )
            for kind in bare[0]
        },
        "listed": [listing(project, template.folder, count) for count in RUNS],
    }


def time_run(project: Path, command) -> dict[str, float]:
    """Time a whole run from nothing.

    Return its seconds, and the processor seconds of the process that calls papermill.
    """
    run = Run(project / "outputs" / "bench-runs")
    start = time.perf_counter()
    completed = subprocess.run(command(run), **start_options(project), **QUIET)
    seconds = time.perf_counter() - start
    shutil.rmtree(run.cache.resolve())
    shutil.rmtree(run.folder)
    return {
        "seconds": round(seconds, 2),
        "processor": round(float(completed.stderr.split()[-1]), 2),
    }


def bare_command(run: Run) -> list[str]:
    stages = configs("demo", run.folder, SMALL)
    parameters = {
        run.notebook(stage).name: as_parameters(config) for stage, config in stages.items()
    }
    return [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        BARE,
        str(run.folder.parent.parent / "notebooks"),
        str(run.folder),
        json.dumps(parameters),
    ]


def our_command(run: Run) -> list[str]:
    options = [part for setting in SMALL for part in ("-p", setting)]
    return [sys.executable, "-W", "ignore", "-c", OURS, "run", "demo", "--name", run.name, *options]


def listing(project: Path, template: Path, count: int) -> dict:
    """Return the slowest seconds of `list` and `index`, and the bytes of the index.

    count: the number of copies of the run `template` that the project holds.
    """
    with tempfile.TemporaryDirectory(dir=project.parent) as folder:
        other = copy_project(Path(folder) / "project")
        copy_run(template, other / "outputs", count)
        seconds = {f"{command}_seconds": slowest(other, command) for command in ("list", "index")}
        return {
            "runs": count,
            **seconds,
            "index_bytes": (other / "outputs" / "index.html").stat().st_size,
        }


def copy_run(template: Path, outputs: Path, count: int):
    """Copy a run `count` times, without the files that no listing reads."""
    for number in range(count):
        folder = outputs / f"run-{number:04}"
        shutil.copytree(template / "compare", folder / "compare")
        for name in ("run.json", "report.html", "log.txt", "thumbnail.png"):
            shutil.copy(template / name, folder / name)


def slowest(project: Path, command: str) -> float:
    seconds = []
    for _ in range(LISTED):
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "nbs_lib", command], **start_options(project), **QUIET
        )
        seconds.append(time.perf_counter() - start)
    return round(max(seconds), 2)


if __name__ == "__main__":
    main()
