"""One command for a machine with GPUs, in 8 minutes or less: the reference method against ours at SD 2.1's true size.

    python benchmarks/gpu.py                    # or: make bench-gpu; writes benchmarks/results/gpu.json
    python benchmarks/gpu.py --toy --out FILE   # the embedded size; what a machine without a GPU does

Random weights, latents of 512 pixels, on all GPUs. Every side is a process of its own, for a process that has touched CUDA
cannot fork others; this one never does. A side that would not fit into the time is left out, and said to be.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import page
import torch
from gpu_sides import Side

from nbs_lib.files import ROOT, write_atomic
from nbs_lib.machine import facts

BUDGET, DEMO, LIMIT = 480.0, 150.0, 120.0  # seconds: in all, kept for the demo, of a side
SIDES = {
    "reference, fp32": Side("reference", zero_stage=0),
    **{f"{name}, ZeRO {stage}": Side(name, zero_stage=stage) for stage in (0, 2, 3) for name in ("live", "cached")},
    **{f"{name}, ZeRO 0, compiled": Side(name, zero_stage=0, compiled=True) for name in ("live", "cached")},
}


def main(toy: bool, out: Path | None):
    end, told, skipped = time.monotonic() + BUDGET, {}, []
    for name, side in SIDES.items():
        left = end - DEMO - time.monotonic()
        if left < LIMIT / 2 or (toy and (side.compiled or side.zero_stage == 3)):
            skipped.append(name)
            continue
        print(f"{name} …", flush=True)
        told[name] = measured(side, toy, min(left, LIMIT))
        print(f"{name}: {told[name]}", flush=True)
    demo = None
    if toy:
        skipped.append("the demo recipe")
    else:
        demo = demo_seconds(end - time.monotonic())
    made = {
        "date": datetime.now(UTC).date().isoformat(),
        **facts(),
        "sides": told,
        "skipped": skipped,
        "demo_seconds": demo,
    }
    if skipped:
        print(f"skipped: {', '.join(skipped)}")
    if out:
        write_atomic(out, json.dumps(made, indent=1) + "\n")
    elif not toy:
        page.save("gpu", made)
    else:
        print(json.dumps(made["sides"], indent=1))


def measured(side: Side, toy: bool, seconds: float) -> dict:
    """What a side came to in a process of its own, or what it failed with."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-W",
            "ignore",
            str(Path(__file__).with_name("gpu_sides.py")),
            folder,
            json.dumps(vars(side)),
        ]
        try:
            done = subprocess.run([*command, str(int(toy))], capture_output=True, text=True, timeout=seconds)
        except subprocess.TimeoutExpired:
            return {"failed": f"took more than {seconds:.0f} s"}
        if done.returncode:
            return {"failed": (done.stderr.strip().splitlines() or ["no word"])[-1][:300]}
        return json.loads((Path(folder) / "told.json").read_text())


def demo_seconds(limit: float) -> float | str:
    """The demo recipe, start to report."""
    start = time.monotonic()
    command = [sys.executable, "-m", "nbs_lib", "run", "demo", "--name", "bench-gpu-demo"]
    subprocess.run(["rm", "-rf", "outputs/bench-gpu-demo"], cwd=ROOT, check=True)
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=max(1.0, limit))
    except subprocess.TimeoutExpired:
        return f"took more than {limit:.0f} s"
    return round(time.monotonic() - start, 1) if done.returncode == 0 else done.stderr.strip()[-300:]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--toy", action="store_true", help="the embedded UNet's size; so on any machine without a GPU")
    parser.add_argument("--out", type=Path, help="where the figures go, instead of benchmarks/results/gpu.json")
    given = parser.parse_args()
    main(given.toy or not torch.cuda.device_count(), given.out)
