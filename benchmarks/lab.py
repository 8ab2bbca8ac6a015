"""The comparison lab: many headless runs, its overhead over a bare pipeline, and the frontier.

    python benchmarks/lab.py [PART …]     # or: make bench-lab

PART is headless, overhead or frontier; without any, all are measured. The figures go to
benchmarks/results/lab.json; parts that are not measured keep their last figures.
"""

import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime

import page
import torch

from nbs_lib.compare.sampling.sample_cache import SampleCache
from nbs_lib.compare.sampling.sampler import load_sampler
from nbs_lib.config import REFERENCE_PROMPTS, Compare, Prepare, Train
from nbs_lib.config.validation import as_parameters
from nbs_lib.files import ROOT
from nbs_lib.models.lora.metadata import LORA_FILE
from nbs_lib.prepare import prepare
from nbs_lib.run.environment import environment
from nbs_lib.run.fingerprint import NOTEBOOKS
from nbs_lib.run.run import Run
from nbs_lib.train import train

PARTS = ("headless", "overhead", "frontier")
RUNS, PATIENCE = 50, 300  # headless runs, and seconds after which one hangs
ROUNDS, STEPS = 7, 25  # of the overhead, the first thrown away
FRONTIER = ROOT / "outputs" / "bench-frontier"
PUBLISHED = {"selective-20": 0.082, "selective-50": 0.203}
"""The share of a picture's time that selective guidance saves.

Source: arXiv 2305.09847, table 1.
"""


def main(parts: list[str]):
    last = page.RESULTS / "lab.json"
    figures = json.loads(last.read_text()) if last.exists() else {}
    for part in parts:
        figures[part] = {"headless": headless, "overhead": overhead, "frontier": frontier}[part]()
        print(part, json.dumps(figures[part], indent=1), flush=True)
        page.save("lab", figures | {"date": datetime.now(UTC).date().isoformat(), **environment()})


def tiny_run() -> Run:
    """Return a run that was trained for two steps."""
    folder = ROOT / "outputs" / "bench-lab"
    shutil.rmtree(folder, ignore_errors=True)
    run = prepare(Prepare(str(folder), max_examples=32)).run
    train(
        Train(
            str(folder),
            steps=2,
            batch_size=4,
            num_processes=1,
            validation_steps=0,
            checkpointing_steps=0,
        )
    )
    return run


def headless() -> dict:
    """Run 3_compare through papermill many times, with its pictures sampled each time."""
    run, seconds, failed, hung = tiny_run(), [], 0, 0
    parameters = as_parameters(
        Compare(
            str(run.folder),
            prompts=REFERENCE_PROMPTS[:2],
            steps=2,
            captions=4,
            dial_at=[1.5, 2.0],
        )
    )
    options = [
        part for name, value in parameters.items() for part in ("-y", json.dumps({name: value}))
    ]
    command = [
        sys.executable,
        "-m",
        "papermill",
        NOTEBOOKS / "3_compare.ipynb",
        run.folder / "again.ipynb",
        *options,
    ]
    for number in range(RUNS):
        shutil.rmtree(run.samples, ignore_errors=True)
        start = time.perf_counter()
        try:
            completed = subprocess.run(
                [*command, "--no-progress-bar"],
                cwd=NOTEBOOKS,
                capture_output=True,
                timeout=PATIENCE,
            )
            failed += completed.returncode != 0
        except subprocess.TimeoutExpired:
            hung += 1
        seconds.append(time.perf_counter() - start)
        print(
            f"{number + 1} of {RUNS}: {seconds[-1]:.1f} s, {failed} failed, {hung} hung", flush=True
        )
    return {"runs": RUNS, "failed": failed, "hung": hung, "seconds": statistics.median(seconds)}


def overhead() -> dict:
    """Return the seconds for the reference's ten prompts, by the lab and by a bare stock pipeline.

    Both have the same settings and take turns.
    """
    run = tiny_run()
    sampler, seeds = load_sampler(run), list(range(len(REFERENCE_PROMPTS)))
    bare = {name: sampler.base.pipeline().to(sampler.device) for name in ("guided", "tuned")}
    bare["tuned"].load_lora_weights(str(run.adapter), weight_name=LORA_FILE)
    bare["tuned"].fuse_lora()

    def by_lab(name: str):
        shutil.rmtree(run.samples, ignore_errors=True)
        settings = sampler.resolver.resolve(name, STEPS)
        SampleCache(run.samples, sampler).get_or_sample(settings, REFERENCE_PROMPTS, seeds)

    def by_pipeline(name: str):
        w = sampler.resolver.w_train if name == "guided" else 1.0
        noise = [torch.Generator().manual_seed(seed) for seed in seeds]
        with torch.no_grad():
            bare[name](
                REFERENCE_PROMPTS, num_inference_steps=STEPS, guidance_scale=w, generator=noise
            )

    figures = {}
    for name in bare:
        seconds = {"lab": [], "bare": []}
        for _ in range(ROUNDS):
            for side, sample in (("lab", by_lab), ("bare", by_pipeline)):
                seconds[side].append(seconds_of(sample, name))
        medians = {side: statistics.median(times[1:]) for side, times in seconds.items()}
        figures[name] = medians | {"over": medians["lab"] / medians["bare"] - 1}
    return figures


def seconds_of(work: Callable, *arguments) -> float:
    start = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - start


def frontier() -> dict:
    """Run the recipe `frontier` by one command, and return its figures."""
    shutil.rmtree(FRONTIER, ignore_errors=True)
    command = [sys.executable, "-m", "nbs_lib", "run", "frontier", "--name", FRONTIER.name]
    seconds = seconds_of(lambda: subprocess.run(command, cwd=ROOT, check=True))
    results = json.loads((FRONTIER / "compare" / "results.json").read_text())
    guided = results["contenders"]["guided"]
    saved = {
        name: {
            "time": 1 - contender["seconds"] / guided["seconds"],
            "nfe": 1 - contender["nfe"] / guided["nfe"],
        }
        for name, contender in results["contenders"].items()
    }
    keys = ("contenders", "guidance_recovered", "dial", "set", "w_train")
    return {
        "seconds": round(seconds, 1),
        "saved": saved,
        "published": PUBLISHED,
        **{name: results[name] for name in keys},
    }


if __name__ == "__main__":
    main(sys.argv[1:] or list(PARTS))
