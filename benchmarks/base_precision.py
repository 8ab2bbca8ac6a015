"""Guidance distillation on a packed base: fidelity and memory beside the base as it is.

    python benchmarks/base_precision.py              # or: make bench-base-precision
    python benchmarks/base_precision.py NAME...      # some of the precisions again

Each trains the same steps on the same examples, and its adapter is sampled on the base as it is, as
a user would. The figures go to benchmarks/results/base-precision.json, the table to
benchmarks/README.md.
"""

import json
import sys
from datetime import UTC, datetime

import fidelity
import page

from nbs_lib.config import Prepare, Train
from nbs_lib.files import ROOT
from nbs_lib.prepare import prepare
from nbs_lib.run.environment import environment
from nbs_lib.run.run import Run
from nbs_lib.train import train

PRECISIONS = ("as_is", "int8", "fp8", "nf4")
STEPS = 200
FOLDER = ROOT / "outputs" / "bench-base-precision"
OPTIONS = {
    "steps": STEPS,
    "target_modules": "all",
    "loss_weighting": "snr_plus_one",
    "mixed_precision": "bf16",
    "num_processes": 1,
    "validation_steps": 0,
    "checkpointing_steps": 10**6,
}


def main(names: list[str]):
    last = page.RESULTS / "base-precision.json"
    rows = json.loads(last.read_text())["rows"] if last.exists() and names else {}
    prepared = prepare(Prepare(str(FOLDER / "prepared"), max_examples=768, replace=True)).run
    sides = {}
    for name in names or PRECISIONS:
        run = train_on(prepared, name)
        sides = sides or {side: fidelity.sample(run, side) for side in ("unguided", "guided")}
        tuned = [fidelity.sample(run, "tuned")]
        rows[name] = fidelity.figures(sides["unguided"], sides["guided"], tuned)
        record = run.stage_record("train")
        rows[name]["base_mib"] = record["memory"]["planned_mib"]["base"]
        print(name, rows[name], flush=True)
        result = {"captions": fidelity.CAPTIONS, "steps": STEPS, "rows": rows}
        stamp = {"date": datetime.now(UTC).date().isoformat(), **environment()}
        page.save("base-precision", stamp | result)


def train_on(prepared: Run, precision: str) -> Run:
    """Train one adapter on the prepared examples; return its run."""
    run = fidelity.new_run(FOLDER / precision, prepared)
    train(Train(str(run.folder), base_precision=precision, **OPTIONS))
    return run


if __name__ == "__main__":
    main(sys.argv[1:])
