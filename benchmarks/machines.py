"""The cost of processes, ZeRO stages, checkpoints and watching.

    python benchmarks/machines.py     # or: make bench-machines

Every side is a real training on kept answers. The sides are launched one after the other in several
rounds; the figure is the median of all rounds' steps, without the first ones of each. The figures
go to benchmarks/results/machines.json.
"""

import os
import shutil
from datetime import UTC, datetime
from statistics import median

import page
from sizes import ten_times

from nbs_lib.config import Prepare, Train
from nbs_lib.files import ROOT, link, read_jsonl
from nbs_lib.prepare import prepare
from nbs_lib.run.environment import environment
from nbs_lib.run.run import Run
from nbs_lib.train import train
from nbs_lib.train.memory.estimate import MIB

FOLDER = ROOT / "outputs" / "bench-machines"
ROUNDS, LEFT_OUT = 2, 3
STAGES = {
    "no DeepSpeed": {"deepspeed": False},
    **{f"ZeRO {stage}": {"zero_stage": stage} for stage in (0, 1, 2, 3)},
    "ZeRO 2, offloaded": {"zero_stage": 2, "offload": True},
}
SIZES = {"embedded": {"batch_size": 8, "steps": 13}, "ten times": {"batch_size": 4, "steps": 9}}


def main():
    shutil.rmtree(FOLDER, ignore_errors=True)
    bases = {"embedded": "embedded", "ten times": str(ten_times(FOLDER / "ten times"))}
    prepared = {
        name: prepare(
            Prepare(
                str(FOLDER / f"prepared {name}"),
                base=base,
                max_examples=64,
                teacher_cache="data",
                teacher_samples=4,
            )
        ).run
        for name, base in bases.items()
    }
    figures = {
        "scaling": scaling(prepared["embedded"]),
        "stages": {name: stages(run, SIZES[name]) for name, run in prepared.items()},
        "checkpoints": checkpoints(prepared["embedded"]),
    }
    page.save(
        "machines", {"date": datetime.now(UTC).date().isoformat(), **environment(), **figures}
    )


def train_run(prepared: Run, **options) -> Run:
    """Train a new run on a prepared run's examples, and return it."""
    run = Run(FOLDER / "run")
    shutil.rmtree(run.folder, ignore_errors=True)
    run.folder.mkdir(parents=True)
    link(run.cache, prepared.cache.resolve())
    run.update(stages={"prepare": prepared.stage_record("prepare")})
    quiet = {
        "mixed_precision": "bf16",
        "teacher": "cached",
        "log_every": 1,
        "checkpointing_steps": 0,
        "validation_steps": 0,
    }
    train(Train(str(run.folder), **quiet | options))
    return run


def rates(run: Run) -> list[float]:
    """Return the examples per second of each step, without the first ones."""
    return [line["examples_per_s"] for line in read_jsonl(run.metrics)][LEFT_OUT:]


def scaling(prepared: Run) -> dict[str, float]:
    """Measure one process on one core and two on two, with the same work for each."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    measured = {1: [], 2: []}
    for _ in range(ROUNDS + 1):
        for processes in measured:
            os.sched_setaffinity(0, cores[:processes])
            measured[processes] += rates(
                train_run(prepared, num_processes=processes, zero_stage=0, batch_size=8, steps=20)
            )
            os.sched_setaffinity(0, cores)
    one, two = (median(values) for values in measured.values())
    print(f"scaling: {one:.2f} and {two:.2f} examples a second", flush=True)
    return {"one": one, "two": two, "efficiency": two / (2 * one)}


def stages(prepared: Run, options: dict) -> dict[str, dict[str, float]]:
    """Return the seconds per step and the peak memory of a process, at each stage."""
    seconds = {name: [] for name in STAGES}
    peaks = {}
    for _ in range(ROUNDS):
        for name, stage in STAGES.items():
            run = train_run(prepared, num_processes=2, **options, **stage)
            seconds[name] += [2 * options["batch_size"] / rate for rate in rates(run)]
            peaks[name] = max(run.stage_record("train")["memory"]["measured_mib"])
    figures = {
        name: {"seconds": median(times), "peak_mib": peaks[name]} for name, times in seconds.items()
    }
    print(figures, flush=True)
    return figures


def checkpoints(prepared: Run) -> dict[str, float]:
    """Return the seconds of a checkpoint, its share of the time at one a minute, and watching's."""
    run = train_run(prepared, num_processes=2, steps=60, checkpointing_steps=5, batch_size=8)
    begun = [(line["stage"], line["seconds"]) for line in read_jsonl(run.usage) if "stage" in line]
    spans = [
        after - at
        for (stage, at), (_, after) in zip(begun, begun[1:], strict=False)
        if stage == "checkpoint"
    ]
    size = sum(
        path.stat().st_size
        for path in next(run.checkpoints.glob("step-*")).rglob("*")
        if path.is_file()
    )
    figures = {
        "seconds": median(spans),
        "count": len(spans),
        "share": median(spans) / 60,
        "mib": size / MIB,
    }
    return figures | {"watch_share": run.stage_record("train")["watch_share"]}


if __name__ == "__main__":
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # two processes on two cores are measured
    main()
