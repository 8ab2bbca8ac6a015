"""Training's speed: a live teacher and kept answers, against the reference method and the floor.

    python benchmarks/train.py     # or: make bench-train

The sides are launched one after the other, in several rounds, on the same processes, base, batch
and machine; the figure is the median of all rounds' steps, without the first ones of each. The
figures go to benchmarks/results/train.json, the table to benchmarks/README.md.
"""

import shutil
from dataclasses import replace
from datetime import UTC, datetime
from statistics import median

import page
import reference

from nbs_lib.config import Prepare, Train
from nbs_lib.files import ROOT, read_jsonl
from nbs_lib.launch.launcher import launch
from nbs_lib.prepare import prepare
from nbs_lib.run.environment import environment
from nbs_lib.run.run import Run
from nbs_lib.train.loop import training_function

ROUNDS, STEPS, LEFT_OUT = 3, 24, 4
BATCH, PROCESSES = 8, 2
SIDES = {
    "reference": (reference.reference, {"mixed_precision": "fp32"}),
    "floor, fp32": (reference.floor, {"mixed_precision": "fp32", "teacher": "cached"}),
    "floor, bf16": (reference.floor, {"mixed_precision": "bf16", "teacher": "cached"}),
    "live, fp32": (training_function, {"mixed_precision": "fp32"}),
    "live, bf16": (training_function, {"mixed_precision": "bf16"}),
    "cached, fp32": (training_function, {"mixed_precision": "fp32", "teacher": "cached"}),
    "cached, bf16": (training_function, {"mixed_precision": "bf16", "teacher": "cached"}),
}


def main():
    run = Run(ROOT / "outputs" / "bench-train")
    shutil.rmtree(run.folder, ignore_errors=True)
    prepare(Prepare(str(run.folder), max_examples=64, teacher_cache="data", teacher_samples=4))
    seconds = {name: [] for name in SIDES}
    for _ in range(ROUNDS):
        for name in SIDES:
            seconds[name] += steps_of(name, run)
    medians = {name: median(times) for name, times in seconds.items()}
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        **environment(),
        "batch": BATCH,
        "processes": PROCESSES,
        "steps": {name: len(times) for name, times in seconds.items()},
        "seconds_a_step": medians,
        "examples_per_s": {name: BATCH * PROCESSES / step for name, step in medians.items()},
        "times_the_reference": {
            name: medians["reference"] / step for name, step in medians.items()
        },
        "cached_over_floor": {
            p: medians[f"cached, {p}"] / medians[f"floor, {p}"] for p in ("fp32", "bf16")
        },
    }
    page.save("train", result)


def steps_of(name: str, run: Run) -> list[float]:
    """Launch a side once and return the seconds of its steps, without the first ones."""
    function, options = SIDES[name]
    config = Train(
        str(run.folder),
        steps=STEPS,
        batch_size=BATCH,
        log_every=1,
        checkpointing_steps=10**6,
        validation_steps=0,
    )
    shutil.rmtree(run.checkpoints, ignore_errors=True)
    launch(
        function,
        replace(config, **options, validation_examples=0, num_processes=PROCESSES),
        run,
        {},
    )
    lines = read_jsonl(run.metrics)[LEFT_OUT:]
    seconds = [
        PROCESSES * BATCH / line["examples_per_s"] if "examples_per_s" in line else line["seconds"]
        for line in lines
    ]
    print(f"{name}: {median(seconds):.3f} s a step", flush=True)
    return seconds


if __name__ == "__main__":
    main()
