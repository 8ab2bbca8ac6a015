"""The cost of a training step with and without DeepSpeed, compiled, and at another commit.

    python benchmarks/steps.py                    # or: make bench-steps
    python benchmarks/steps.py --before 1002a5e   # with the eager steps of a commit beside them

Steps of the embedded base on cached answers, one process, batch 32, launched in turns in several
rounds; the figure is the median of all rounds' steps without the first ones of each, which compile.
The figures go to benchmarks/results/steps.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import page
import train as bench_train

from nbs_lib.config import Prepare
from nbs_lib.files import ROOT
from nbs_lib.prepare import prepare
from nbs_lib.run.environment import environment
from nbs_lib.run.run import Run
from nbs_lib.train.loop import training_function

ROUNDS, BATCH = 3, 32
EAGER: dict[str, dict[str, Any]] = {
    "plain": {"deepspeed": False},
    "ZeRO 0": {},
    "ZeRO 1": {"zero_stage": 1},
    "ZeRO 2": {"zero_stage": 2},
}
COMPILED = {
    "ZeRO 0, blocks compiled": {"compile": "blocks"},
    "ZeRO 0, compiled whole": {"compile": "whole"},
}


def main(before: str):
    seconds = measure_in(ROOT, EAGER | COMPILED)
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        **environment(),
        "batch": BATCH,
        "seconds_a_step": seconds,
        "before": before,
        "seconds_before": measure_at(before) if before else {},
    }
    page.save("steps", result)


def measure_at(commit: str) -> dict[str, float]:
    """Return the seconds of the eager steps at another commit, in a work tree of its own."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--detach", str(tree), commit], check=True)
        try:
            return measure_in(tree, EAGER)
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def measure_in(tree: Path, sides: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Return the median seconds of each side's steps, measured with the library in a tree."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-W", "ignore", __file__, "--in", folder, json.dumps(sides)]
        variables = os.environ | {"PYTHONPATH": str(tree)}
        subprocess.run(command, cwd=tree, env=variables, check=True)
        return json.loads((Path(folder) / "seconds.json").read_text())


def measure(folder: Path, sides: dict[str, dict[str, Any]]):
    """Write the median seconds of each side's steps into a folder."""
    run = Run(folder / "run")
    prepare(Prepare(str(run.folder), max_examples=64, teacher_cache="data", teacher_samples=4))
    bench_train.BATCH, bench_train.PROCESSES = BATCH, 1
    shared = {"teacher": "cached", "mixed_precision": "bf16"}
    bench_train.SIDES = {
        name: (training_function, shared | options) for name, options in sides.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, times in seconds.items():
            times += bench_train.steps_of(name, run)
    medians = {name: median(times) for name, times in seconds.items()}
    (folder / "seconds.json").write_text(json.dumps(medians))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", default="", help="a commit whose steps are measured too")
    parser.add_argument("--in", dest="folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("sides", nargs="?", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.folder:
        measure(arguments.folder, json.loads(arguments.sides))
    else:
        main(arguments.before)
