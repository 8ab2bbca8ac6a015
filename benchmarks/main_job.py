"""The main job, as a user runs it: `onepass run RECIPE` from nothing, timed, with its figures.

    python benchmarks/main_job.py demo demo-long     # or: make bench; others: make bench-recipes
    python benchmarks/main_job.py cached+train.target_modules=feedforward     # parameter changed

Each recipe gets a fresh run outputs/bench-RECIPE; its figures go to benchmarks/results/RECIPE.json,
and the table of all results to benchmarks/README.md. Times are wall clock on the machine that the
result names.
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import page
from unseen import shares, snowmen

from nbs_lib.picturebook.dataset import draw_book

ROOT = Path(__file__).resolve().parent.parent


def measure(recipe: str) -> dict:
    """Run a recipe from nothing and return its figures.

    recipe: RECIPE, or RECIPE+NAME=VALUE+… with changed parameters.
    """
    plain, *changed = recipe.split("+")
    name = "-".join(["bench", plain, *(change.rpartition("=")[2] for change in changed)])
    run, seconds = run_from_nothing(plain, name, changed)
    record, results = (
        json.loads((run / file).read_text()) for file in ("run.json", "compare/results.json")
    )
    stages = record["stages"]
    keys = (
        "w_train",
        "steps",
        "scheduler",
        "contenders",
        "guidance_recovered",
        "time_ratio",
        "nfe_ratio",
    )
    return {
        "recipe": recipe,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": record["machine"],
        "versions": record["versions"],
        "commit": record["commit"],
        "seconds": round(seconds, 1),
        "scenes_per_second": round(scenes_per_second()),
        "stages": {stage: stage_record["seconds"] for stage, stage_record in stages.items()},
        "train": {
            **stages["train"]["parameters"],
            "run": name,
            "num_processes": stages["train"]["processes"],
        },
        "cache_reused": stages["prepare"]["reused"],
        "cache_seconds": stages["prepare"]["cache_seconds"],
        "captions": stages["compare"]["parameters"]["captions"],
        "held_out_loss": stages["train"]["held_out_loss"],
        "shows_the_unseen": shares(run / "compare", results["pictures"], "snowman", snowmen())
        if plain == "unseen"
        else None,
        **{key: results[key] for key in keys},
    }


def run_from_nothing(recipe: str, name: str, changed: Sequence[str] = ()) -> tuple[Path, float]:
    """Run a recipe without a cache or a run of that name; return the run's folder and the seconds.

    changed: parameters, NAME=VALUE each.
    """
    run = ROOT / "outputs" / name
    if (run / "cache").exists():
        shutil.rmtree((run / "cache").resolve())
    shutil.rmtree(run, ignore_errors=True)
    start = time.perf_counter()
    run_recipe(recipe, name, changed)
    return run, time.perf_counter() - start


def run_recipe(recipe: str, name: str, changed: Sequence[str]):
    """Run the stages of a recipe whose parameters or inputs changed."""
    options = ["--name", name, *(f"-p{change}" for change in changed)]
    subprocess.run([sys.executable, "-m", "nbs_lib", "run", recipe, *options], cwd=ROOT, check=True)


def scenes_per_second(count: int = 1000, repetitions: int = 5) -> float:
    """Return the scenes that the picture-book draws per second, as a median of repetitions."""
    seconds = []
    for seed in range(repetitions):
        start = time.perf_counter()
        draw_book(count, seed)
        seconds.append(time.perf_counter() - start)
    return count / median(seconds)


def main(recipes: list[str]):
    for recipe in recipes:
        page.save(recipe, measure(recipe))


if __name__ == "__main__":
    main(sys.argv[1:] or ["demo", "demo-long"])
