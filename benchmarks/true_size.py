"""Memory of a whole training at Stable Diffusion 2.1's true size, against the reference method's.

    python benchmarks/true_size.py     # or: make bench-true-size
    python benchmarks/true_size.py --out FILE     # the figures go there alone

The UNet has random weights and the published configuration of SD 2.1 (866 M parameters), frozen in
bf16 with a LoRA in fp32, latents of 512 pixels, gradient checkpointing, a live teacher, batch 1,
one process, DeepSpeed. The training is prepared, runs for a few steps, is saved and checked. On a
CPU it needs about 6 GiB of memory and some minutes.

The reference method is planned by the same rehearsal, its parts alone: a second UNet in fp32 as the
teacher, every weight trained with AdamW in fp32. The figures go to
benchmarks/results/true-size.json, the table to benchmarks/README.md.
"""

import argparse
import json
import shutil
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import page
from sizes import true_base

from nbs_lib.config import Prepare, Train
from nbs_lib.files import ROOT, read_jsonl, write_atomic
from nbs_lib.prepare import prepare
from nbs_lib.run.environment import environment
from nbs_lib.train import train
from nbs_lib.train.memory.estimate import MIB, plan_memory

FOLDER, STEPS = ROOT / "outputs" / "bench-true-size", 3
REFERENCE = {
    "method": "full",
    "mixed_precision": "fp32",
    "deepspeed": False,
    "batch_size": 1,
    "validation_steps": 0,
}


def main(out: Path | None):
    shutil.rmtree(FOLDER, ignore_errors=True)
    base = true_base(FOLDER / "base")
    # the embedded VAE's latents of 256 pixels are as large as the real one's of 512
    run = prepare(Prepare(str(FOLDER / "run"), base=str(base), max_examples=4, resolution=256)).run
    reference = plan_memory(Train(str(FOLDER / "x"), **REFERENCE), run.cache, 1)
    options = {
        "mixed_precision": "bf16",
        "batch_size": 1,
        "gradient_checkpointing": True,
        "num_processes": 1,
        "steps": STEPS,
        "log_every": 1,
    }
    train(Train(str(run.folder), **options, checkpointing_steps=0, validation_steps=0))
    memory = run.stage_record("train")["memory"]
    [measured] = memory["measured_mib"]
    parts = {
        name: reference.parts[name] / MIB
        for name in ("base", "trained weights", "gradients", "optimizer")
    }
    # only its numbers, without the process around them
    parts["activations"] = reference.passing["activations"] / MIB
    # not from the logged rates, which are rounded too coarsely for steps this slow
    ends = [0.0, *(line["seconds"] for line in read_jsonl(run.metrics))]
    figures = {
        "seconds": [end - begin for begin, end in pairwise(ends)],
        "planned_mib": memory["planned_mib"]["a process at its peak"],
        "measured_mib": measured,
        "reference_planned_mib": sum(parts.values()),
        "reference_parts_mib": parts,
        "room_mib": reference.room / MIB,
        "share": measured / sum(parts.values()),
    }
    print(figures)
    if out:
        write_atomic(out, json.dumps(figures, indent=1) + "\n")
    else:
        page.save(
            "true-size", {"date": datetime.now(UTC).date().isoformat(), **environment(), **figures}
        )
    shutil.rmtree(FOLDER)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out",
        type=Path,
        help="where the figures go, instead of benchmarks/results/true-size.json",
    )
    main(parser.parse_args().out)
