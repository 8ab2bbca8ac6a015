"""Few-step distillation: quality by passes, adapters together, and the cost of a training step.

    python benchmarks/few_steps.py [PART …]     # or: make bench-few-steps

PART is a recipe of RECIPES, together or cost; without any, all are measured. A recipe is run from
nothing and compared with guidance on 500 held-out captions, which also draws
docs/pictures/few-steps.png; `together` samples the few-step adapter beside the guidance
adapter of the demo; `cost` times the parts of a training step. The figures go to
benchmarks/results/few-steps.json; parts that are not measured keep their last figures.
"""

import json
import shutil
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from statistics import median

import page
import torch
from main_job import run_from_nothing, run_recipe

from nbs_lib.compare.report.plots import frontier
from nbs_lib.config import Prepare, Train
from nbs_lib.files import ROOT
from nbs_lib.models import find_base
from nbs_lib.prepare import prepare
from nbs_lib.run.environment import environment
from nbs_lib.run.run import Run
from nbs_lib.train.data.dataset import Examples
from nbs_lib.train.networks import DTYPES, build_networks, choose_attention, set_memory_format
from nbs_lib.train.objectives import distribution, guidance
from nbs_lib.train.student import Student

CAPTIONS = 500  # held out, of the quality
# seeds of each of the ten prompts, of the diversity
SEEDS = [0, 1, 2, 3]
# contenders of each recipe
RECIPES = {
    "demo": ["tuned"],
    "four-steps": ["tuned"],
    "consistency": ["tuned in 2 steps", "tuned"],
    "few-steps": ["tuned in 8 steps", "tuned in 2 steps", "tuned in 1 step", "tuned"],
}
# parameters changed: consistency trains about as long as four-steps does
CHANGED = {"consistency": ["train.steps=300"]}
# names of tuned in the picture
LABELS = {
    "demo": "guidance adapter",
    "four-steps": "four-steps",
    "consistency": "consistency",
    "few-steps": "few-steps",
}
PICTURE = ROOT / "docs" / "pictures" / "few-steps.png"
SCALES = [0.0, 0.25, 0.5, 0.75, 1.0]  # of both adapters together
ROUNDS = 10  # of each part of a step, the first two thrown away
BATCH = 8


def main(parts: list[str]):
    last = page.RESULTS / "few-steps.json"
    figures = json.loads(last.read_text()) if last.exists() else {}
    figures.setdefault("recipes", {})
    for part in parts:
        if part in RECIPES:
            figures["recipes"][part] = measure_recipe(part)
            draw_frontier(figures["recipes"])
        else:
            figures[part] = {"together": together, "cost": cost}[part]()
        page.save(
            "few-steps", figures | {"date": datetime.now(UTC).date().isoformat(), **environment()}
        )


def measure_recipe(recipe: str) -> dict:
    """Run a recipe from nothing; return its time, and quality and cost of its contenders."""
    changed = CHANGED.get(recipe, [])
    run, seconds = run_from_nothing(recipe, f"bench-{recipe}", changed)
    stages = json.loads((run / "run.json").read_text())["stages"]
    # the recipe's own comparison belongs to its time, and is replaced by this one
    compare_again(recipe, ["unguided", "guided", *RECIPES[recipe]])
    results = json.loads((run / "compare/results.json").read_text())
    return {
        "seconds": seconds,
        "training_seconds": stages["train"]["seconds"],
        "parameters": stages["train"]["parameters"],
        "w_train": results["w_train"],
        "contenders": {name: quality(row) for name, row in results["contenders"].items()},
    }


def draw_frontier(figures: dict[str, dict]):
    """Draw caption accuracy by passes, with the unguided and guided base of the last comparison."""
    rows = {}
    for recipe, figure in figures.items():
        for name, row in figure["contenders"].items():
            label = name.replace("tuned", LABELS[recipe]) if "tuned" in name else name
            rows[label] = row
    rates = {name: row["caption_first"]["rate"] for name, row in rows.items()}
    frontier(rates, rows, rates=True).savefig(PICTURE)


def quality(row: dict) -> dict:
    """Return the figures of a contender."""
    names = ("caption_first", "fid", "clip_score", "diversity", "nfe", "seconds")
    return {name: row.get(name) for name in names}


def compare_again(recipe: str, contenders: list[str], captions: int = CAPTIONS):
    """Run the comparison of a recipe's run again with other contenders."""
    settings = {"contenders": contenders, "captions": captions, "seeds": SEEDS}
    changed = [f"compare.{name}={json.dumps(value)}" for name, value in settings.items()]
    run_recipe(recipe, f"bench-{recipe}", [*CHANGED.get(recipe, []), *changed])


def together() -> dict:
    """Return the caption accuracy of the few-step adapter beside guidance's, by both scales."""
    few_steps, guided = (ROOT / "outputs" / name for name in ("bench-few-steps", "bench-demo"))
    names = {}
    for few in SCALES[1:]:
        for dial in SCALES:
            names[f"{few_steps} at {few} + {guided} at {dial}"] = (few, dial)
    compare_again("few-steps", ["unguided", "guided", "tuned", *names], captions=150)
    results = json.loads((few_steps / "compare/results.json").read_text())
    rows = []
    for name, (few, dial) in names.items():
        rows.append({"few_steps": few, "guidance": dial} | quality(results["contenders"][name]))
    return {"rows": rows}


def cost() -> dict:
    """Return the seconds of the parts of a training step, and of a plain guidance step."""
    run = Run(ROOT / "outputs" / "bench-few-steps-cost")
    shutil.rmtree(run.folder, ignore_errors=True)
    prepare(Prepare(str(run.folder), max_examples=64))
    options = {"rank": 32, "alpha": 32.0, "target_modules": "all", "mixed_precision": "bf16"}
    options |= {"batch_size": BATCH, "validation_steps": 0}
    plain = Train(str(run.folder), objective="guidance", **options)
    few = Train(str(run.folder), objective="distribution", few_steps=[4], **options)
    figures = {}
    student = build_student(plain)
    batch = Examples(run.cache, plain).batch(0, 0, 1)
    figures["guidance, whole"] = seconds(
        lambda: guidance(student, student, batch, plain).mean().backward()
    )
    student = build_student(few)
    batch = Examples(run.cache, few).batch(0, 0, 1)
    x_t, t = student.states(batch)

    def fake_score():
        with student.fake_score():
            student(x_t, t, batch.context).mean().backward()

    figures |= {
        "rollout": seconds(lambda: student.states(batch)),
        "generator": seconds(lambda: student(x_t, t, batch.context).mean().backward()),
        "teacher": seconds(lambda: student.teacher(x_t, batch)),
        "fake score": seconds(fake_score),
        "distribution, whole": seconds(
            lambda: distribution(student, student, batch, few).mean().backward()
        ),
    }
    ratio = figures["distribution, whole"] / figures["guidance, whole"]
    return {"batch": BATCH, "seconds": figures, "times_guidance": ratio}


def build_student(config: Train) -> Student:
    base = find_base("embedded")
    networks = build_networks(base, config)
    dtype = DTYPES[config.mixed_precision]
    choose_attention(networks.unet, dtype, "cpu")
    set_memory_format(networks.unet)
    return Student(networks.unet, base.scheduler().alphas_cumprod, base.prediction_type, dtype)


def seconds(function: Callable) -> float:
    """Return the median seconds of a call."""
    torch.set_num_threads(1)
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return median(times[2:])


if __name__ == "__main__":
    main(sys.argv[1:] or [*RECIPES, "together", "cost"])
