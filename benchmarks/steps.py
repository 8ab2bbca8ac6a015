"""The engine's share of a training step, and what torch.compile gains on this machine.

    python benchmarks/steps.py                    # or: make bench-steps, 10 minutes on two cores
    python benchmarks/steps.py --before 73aaa02   # with the steps of a commit, 4 minutes more

Training: steps of the embedded base on cached answers, one process, batch 32, with DeepSpeed's
engine and without it (plain), eagerly and compiled. Every round launches each side once, in another
order, and a side's ratio is the median of its rounds' ratios to plain: what slows the machine for a
while slows a whole round. Sampling: guided pictures, eagerly and compiled, drawn in turns. The
compiler begins with an empty cache. An earlier commit takes the steps of its own `bench-train` in a
work tree of its own, in turns with those of this one.

The figures go to benchmarks/results/steps.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import page
import train as bench_train

from nbs_lib.compare.sampling.engines import on_engine
from nbs_lib.config import Prepare
from nbs_lib.files import ROOT, read_jsonl
from nbs_lib.models import find_base
from nbs_lib.prepare import prepare
from nbs_lib.run.environment import environment
from nbs_lib.run.run import Run
from nbs_lib.train.compilation import CACHE_VARIABLE
from nbs_lib.train.loop import training_function
from nbs_lib.train.resolve import multiplies_bf16

ROUNDS, BATCH, STEPS = 3, 32, 14
LAST_START = 240  # seconds after which no further round begins
PLAIN = "plain"
SIDES: dict[str, dict[str, Any]] = {
    PLAIN: {"deepspeed": False},
    "ZeRO 0": {},
    "ZeRO 1": {"zero_stage": 1},
    "ZeRO 2": {"zero_stage": 2},
    "ZeRO 0, blocks compiled": {"compile": "blocks"},
    "ZeRO 0, compiled whole": {"compile": "whole"},
}
PICTURES, SAMPLING_STEPS, DRAWS = 4, 25, 5
# Run in the work tree of a commit, with the benchmark and the library of that commit.
COMMIT_STEPS = """
import json, sys
from pathlib import Path
from statistics import median
sys.path.insert(0, "benchmarks")
# accelerate forks no process that has it, and an earlier commit does not hide it from peft
sys.modules["bitsandbytes"] = None
import train
from nbs_lib.config import Prepare
from nbs_lib.prepare import prepare
from nbs_lib.run.run import Run
del sys.modules["bitsandbytes"]
folder, precision = Path(sys.argv[1]), sys.argv[2]
run = Run(folder / "run")
if not run.folder.exists():
    prepare(Prepare(str(run.folder), max_examples=64, teacher_cache="data", teacher_samples=4))
sides = {teacher: train.steps_of(f"{teacher}, {precision}", run) for teacher in ("live", "cached")}
(folder / "seconds.json").write_text(json.dumps({name: median(s) for name, s in sides.items()}))
"""


def main(before: str):
    precision = "bf16" if multiplies_bf16() else "fp32"
    with tempfile.TemporaryDirectory() as folder:
        os.environ[CACHE_VARIABLE] = str(Path(folder) / "compiled")
        training = measure_training(Path(folder) / "run", precision)
        # not before the launches: forked processes do not survive its threads
        sampling = measure_sampling()
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        **environment(),
        "batch": BATCH,
        "mixed_precision": precision,
        "training": training,
        "sampling": sampling,
        "before": compare_commits(before, precision) if before else {},
    }
    page.save("steps", result)


def measure_training(folder: Path, precision: str) -> dict[str, dict[str, Any]]:
    """Return each side's seconds a step, its ratio to plain, and the seconds of its compiler."""
    run = Run(folder)
    prepare(Prepare(str(run.folder), max_examples=64, teacher_cache="data", teacher_samples=4))
    shared = {"teacher": "cached", "mixed_precision": precision}
    bench_train.BATCH, bench_train.PROCESSES, bench_train.STEPS = BATCH, 1, STEPS
    bench_train.SIDES = {
        name: (training_function, shared | options) for name, options in SIDES.items()
    }
    names = list(SIDES)
    rounds: list[dict[str, float]] = []
    compiling: dict[str, float] = {}
    start = time.perf_counter()
    while len(rounds) < ROUNDS and time.perf_counter() - start < LAST_START:
        seconds = {}
        for name in names:
            seconds[name] = median(bench_train.steps_of(name, run))
            # the first one: later rounds find its code
            compiling.setdefault(name, read_jsonl(run.metrics)[-1].get("compile_seconds", 0.0))
        rounds.append(seconds)
        names = [*names[2:], *names[:2]]
    return {
        name: {
            "seconds": median(seconds[name] for seconds in rounds),
            "of_plain": [seconds[name] / seconds[PLAIN] for seconds in rounds],
            "compile_seconds": compiling[name],
        }
        for name in SIDES
    }


def measure_sampling() -> dict[str, float]:
    """Return the seconds of a guided picture, eagerly and compiled, and those until it is ready."""
    base = find_base("embedded")
    pipe = base.pipeline()
    pipe.set_progress_bar_config(disable=True)
    start = time.perf_counter()
    denoisers = {"eager": base.denoiser(), "compiled": on_engine(base.denoiser(), "compile", base)}
    seconds: dict[str, list[float]] = {name: [] for name in denoisers}
    draw(pipe, denoisers["compiled"])
    ready = time.perf_counter() - start
    draw(pipe, denoisers["eager"])
    for _ in range(DRAWS):
        for name, denoiser in denoisers.items():
            seconds[name].append(draw(pipe, denoiser))
    return {name: median(times) for name, times in seconds.items()} | {"until_ready": ready}


def draw(pipe: Any, denoiser: Any) -> float:
    """Draw guided pictures, and return the seconds of each."""
    pipe.unet = denoiser
    start = time.perf_counter()
    options = {"num_inference_steps": SAMPLING_STEPS, "guidance_scale": 4.0, "output_type": "np"}
    pipe(["A person holding a cat"] * PICTURES, **options)
    return (time.perf_counter() - start) / PICTURES


def compare_commits(commit: str, precision: str) -> dict[str, Any]:
    """Return the steps of this commit and of an earlier one, and how many times faster they are."""
    rounds = []
    with work_tree(commit) as tree, tempfile.TemporaryDirectory() as folder:
        folders = {tree: Path(folder) / "before", ROOT: Path(folder) / "now"}
        for place in folders.values():
            place.mkdir()
        for _ in range(ROUNDS):
            rounds.append(tuple(steps_at(at, place, precision) for at, place in folders.items()))
    return {
        "commit": commit,
        **{
            teacher: {
                "before": median(before[teacher] for before, _ in rounds),
                "now": median(now[teacher] for _, now in rounds),
                "times": median(before[teacher] / now[teacher] for before, now in rounds),
            }
            for teacher in ("live", "cached")
        },
    }


@contextmanager
def work_tree(commit: str) -> Iterator[Path]:
    """Check a commit out into a work tree for a while."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--detach", str(tree), commit], check=True)
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def steps_at(tree: Path, folder: Path, precision: str) -> dict[str, float]:
    """Return the median seconds of the steps of a tree's own benchmark. folder: for its run."""
    command = [sys.executable, "-W", "ignore", "-c", COMMIT_STEPS, str(folder), precision]
    subprocess.run(command, cwd=tree, env=os.environ | {"PYTHONPATH": str(tree)}, check=True)
    return json.loads((folder / "seconds.json").read_text())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", default="", help="a commit whose steps are measured too")
    main(parser.parse_args().before)
