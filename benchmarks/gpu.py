"""Comparison of the reference method and ours on GPUs, at SD 2.1's true size, in 8 minutes.

    python benchmarks/gpu.py                    # or: make bench-gpu
    python benchmarks/gpu.py --toy --out FILE   # the embedded size, as on a machine without a GPU

Random weights, latents of 512 pixels, on all GPUs. Every setup runs in a process that is forked
from this one, which has imported the libraries and never touches CUDA. Setups that would not fit
into the time are skipped, and the result lists them. The figures go to
benchmarks/results/gpu.json.
"""

import argparse
import importlib
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import page
import torch
from gpu_sampling import sample
from gpu_sides import OURS, Setup, measure

from nbs_lib.files import ROOT, write_atomic
from nbs_lib.run.environment import environment

BUDGET = 480.0  # seconds, in all
MEMORY = 90.0  # seconds reserved for the memory of a whole training
LIMIT = 160.0  # seconds of one setup
LIBRARIES = (
    "deepspeed",
    "diffusers.loaders.lora_pipeline",
    "transformers.models.clip.modeling_clip",
)
FORK = multiprocessing.get_context("fork")
# the most telling first: what does not fit into the time is left out
SETUPS = {
    "fp32": Setup(("reference",)),
    "ZeRO 0": Setup(OURS, profiled=True),
    "ZeRO 0, batch 32": Setup(OURS, batch=32, profiled=True),
    "ZeRO 0, batch 32, compiled whole": Setup(OURS, batch=32, compile="whole", profiled=True),
    "sampling": Setup(("pictures",)),
    "ZeRO 2, batch 32": Setup(OURS, zero_stage=2, batch=32),
    "ZeRO 0, batch 64": Setup(OURS, batch=64),
    "ZeRO 0, compiled whole": Setup(OURS, compile="whole"),
}


def main(toy: bool, out: Path | None):
    end = time.monotonic() + BUDGET
    results = {
        "date": datetime.now(UTC).date().isoformat(),
        **environment(),
        "sides": {},
        "sampling": {},
        "skipped": [],
        "memory": None,
    }
    for name in LIBRARIES:  # once, and not in every setup
        importlib.import_module(name)
    for name, setup in SETUPS.items():
        sides = [f"{method}, {name}" for method in setup.methods]
        left = end - MEMORY - time.monotonic()
        if left < LIMIT / 4 or (toy and setup.compile != "off"):
            results["skipped"] += sides
            continue
        print(f"{'; '.join(sides)} …", flush=True)
        figures = run_setup(setup, toy, min(left, LIMIT))
        if name == "sampling" and "failed" not in figures:
            results["sampling"] = figures
        else:
            results["sides"] |= {
                side: figures.get(method, figures)
                for side, method in zip(sides, setup.methods, strict=True)
            }
        print(json.dumps(figures, indent=1), flush=True)
        save(results, toy, out)
    if toy:
        results["skipped"] += ["a whole training's memory"]
    else:
        results["memory"] = memory_of_a_training(end - time.monotonic())
        print(f"a whole training's memory: {results['memory']}", flush=True)
    if results["skipped"]:
        print(f"skipped: {', '.join(results['skipped'])}")
    save(results, toy, out)


def save(results: dict, toy: bool, out: Path | None):
    """Write the figures so far, because a lent machine may be taken back before the end."""
    if out:
        write_atomic(out, json.dumps(results, indent=1) + "\n")
    elif not toy:
        page.save("gpu", results)


def run_setup(setup: Setup, toy: bool, seconds: float) -> dict:
    """Run a setup in a separate process; return its figures by method, or its failure."""
    with tempfile.TemporaryDirectory() as folder:
        receiver, sender = FORK.Pipe(duplex=False)
        process = FORK.Process(target=send_figures, args=(sender, Path(folder), setup, toy))
        process.start()
        sender.close()
        try:
            return (
                receiver.recv()
                if receiver.poll(seconds)
                else {"failed": f"took more than {seconds:.0f} s"}
            )
        except EOFError:
            return {"failed": "it was ended"}
        finally:
            process.kill()
            process.join()


def send_figures(pipe: Any, folder: Path, setup: Setup, toy: bool):
    """Measure a setup and send the figures; the setup's own processes end with this one."""
    try:
        sampled = "pictures" in setup.methods
        figures = sample(folder, toy) if sampled else measure(folder, setup, toy)
    except Exception as failure:
        figures = {"failed": str(failure)[:300]}
    pipe.send(figures)


def memory_of_a_training(limit: float) -> dict:
    """Return the planned and the measured peak memory of a whole training.

    It includes the preparation and the check of the saved adapter.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "figures.json"
        failed = run(["benchmarks/true_size.py", "--out", str(out)], limit)
        figures = {"failed": failed} if failed else json.loads(out.read_text())
    return {
        name: figures[name] for name in ("failed", "planned_mib", "measured_mib") if name in figures
    }


def run(arguments: list[str], limit: float) -> str | None:
    """Run Python with these arguments; return the failure, or None."""
    try:
        completed = subprocess.run(
            [sys.executable, "-W", "ignore", *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=limit,
        )
    except subprocess.TimeoutExpired:
        return f"took more than {limit:.0f} s"
    return (
        completed.stderr.strip()[-300:] or f"exit code {completed.returncode}"
        if completed.returncode
        else None
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--toy",
        action="store_true",
        help="the embedded UNet's size; so on any machine without a GPU",
    )
    parser.add_argument(
        "--out", type=Path, help="where the figures go, instead of benchmarks/results/gpu.json"
    )
    arguments = parser.parse_args()
    main(arguments.toy or not torch.cuda.device_count(), arguments.out)
