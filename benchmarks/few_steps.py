"""Few-step distillation: quality by passes, adapters together, and the cost of a training step.

    python benchmarks/few_steps.py [PART …]     # or: make bench-few-steps

PART is a name of TRAININGS, compare, together or cost; without any, all are measured. A training is
of a recipe, from nothing, and a recipe of few steps is run whole. `compare` samples what they
trained, and guidance, on 500 held-out captions, and draws docs/pictures/few-steps.png; `together`
samples the adapter of few-steps beside that of the demo; both need the trainings. `cost` times the
parts of a training step. The figures go to benchmarks/results/few-steps.json; parts that are not
measured keep their last figures.
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
from phased import phased_consistency

from nbs_lib.compare.report.plots import frontier
from nbs_lib.config import Prepare, Train
from nbs_lib.files import ROOT
from nbs_lib.models import find_base
from nbs_lib.pipeline.recipes import configs
from nbs_lib.prepare import prepare
from nbs_lib.run.environment import environment
from nbs_lib.run.run import Run
from nbs_lib.train import train
from nbs_lib.train.data.dataset import Examples
from nbs_lib.train.networks import DTYPES, build_networks, choose_attention, set_memory_format
from nbs_lib.train.objectives import OBJECTIVES, distribution, guidance
from nbs_lib.train.student import Student

CAPTIONS = 500  # held out, of the quality
# seeds of each of the ten prompts, of the diversity
SEEDS = [0, 1, 2, 3]
# recipe and changed parameters of each training; both kinds of consistency train about as long as
# four-steps does
TRAININGS = {
    "demo": ("demo", []),
    "consistency": ("consistency", ["train.steps=300"]),
    "phased": ("consistency", ["train.steps=300"]),
    "four-steps": ("four-steps", []),
    "few-steps": ("few-steps", []),
}
WHOLE = ("four-steps", "few-steps")
# of the run of few-steps
CONTENDERS = {
    "unguided": "unguided",
    "guided": "guided",
    "guidance adapter (demo)": "outputs/bench-demo",
    "consistency": "outputs/bench-consistency",
    "consistency in 2 steps": "outputs/bench-consistency in 2 steps",
    "phased consistency": "outputs/bench-phased",
    "phased consistency in 2 steps": "outputs/bench-phased in 2 steps",
    "four-steps": "outputs/bench-four-steps",
    "few-steps in 8 steps": "tuned in 8 steps",
    "few-steps": "tuned",
    "few-steps at 0.75": "tuned at 0.75",
    "few-steps in 2 steps": "tuned in 2 steps",
    "few-steps in 1 step": "tuned in 1 step",
}
PICTURE = ROOT / "docs" / "pictures" / "few-steps.png"
SCALES = [0.0, 0.25, 0.5, 0.75, 1.0]  # of both adapters together
ROUNDS = 10  # of each part of a step, the first two thrown away
BATCH = 8


def main(parts: list[str]):
    last = page.RESULTS / "few-steps.json"
    figures = json.loads(last.read_text()) if last.exists() else {}
    figures.setdefault("trainings", {})
    for part in parts:
        if part in TRAININGS:
            figures["trainings"][part] = measure_training(part)
        else:
            figures[part] = {"compare": compare, "together": together, "cost": cost}[part]()
        page.save(
            "few-steps", figures | {"date": datetime.now(UTC).date().isoformat(), **environment()}
        )


def measure_training(name: str) -> dict:
    """Train from nothing; return the seconds of the training, and of the whole recipe if it ran."""
    recipe, changed = TRAININGS[name]
    if name in WHOLE:
        run, seconds = run_from_nothing(recipe, f"bench-{name}", changed)
    else:
        run, seconds = train_recipe(name, recipe, changed), None
    stage = json.loads((run / "run.json").read_text())["stages"]["train"]
    # without the place, which is this machine's
    parameters = {name: value for name, value in stage["parameters"].items() if name != "run"}
    return {"seconds": seconds, "training_seconds": stage["seconds"], "parameters": parameters}


def train_recipe(name, recipe, changed):
    """Prepare and train, without the comparison; return the run's folder."""
    folder = ROOT / "outputs" / f"bench-{name}"
    shutil.rmtree(folder, ignore_errors=True)
    stages = configs(recipe, folder, changed)
    own = OBJECTIVES["consistency"]
    if name == "phased":
        # training processes are forks of this one, and find it there
        OBJECTIVES["consistency"] = phased_consistency()
    try:
        prepare(stages["prepare"])
        train(stages["train"])
    finally:
        OBJECTIVES["consistency"] = own
    return folder


def compare() -> dict:
    """Return quality and cost of all contenders, and draw caption accuracy by passes."""
    results = compare_again(list(CONTENDERS.values()))
    rows = {label: quality(results[name]) for label, name in CONTENDERS.items()}
    draw_frontier(rows)
    return rows


def draw_frontier(rows: dict[str, dict]):
    # without those that would only crowd it
    crowd = ("consistency in 2 steps", "phased consistency in 2 steps", "few-steps at 0.75")
    shown = [label for label in rows if label not in crowd]
    rates = {label: rows[label]["caption_first"]["rate"] for label in shown}
    frontier(rates, rows, rates=True).savefig(PICTURE)


def quality(row: dict) -> dict:
    """Return the figures of a contender."""
    names = ("caption_first", "fid", "clip_score", "diversity", "nfe", "seconds")
    return {name: row.get(name) for name in names}


def compare_again(contenders: list[str], captions: int = CAPTIONS) -> dict[str, dict]:
    """Run the comparison of few-steps again; return the figures by contender."""
    settings = {"contenders": contenders, "captions": captions, "seeds": SEEDS}
    changed = [f"compare.{name}={json.dumps(value)}" for name, value in settings.items()]
    run_recipe("few-steps", "bench-few-steps", changed)
    results = ROOT / "outputs" / "bench-few-steps" / "compare" / "results.json"
    return json.loads(results.read_text())["contenders"]


def together() -> dict:
    """Return the caption accuracy of the few-step adapter beside guidance's, by both scales."""
    few_steps, guided = "outputs/bench-few-steps", CONTENDERS["guidance adapter (demo)"]
    names = {}
    for few in SCALES[1:]:
        for dial in SCALES:
            names[f"{few_steps} at {few} + {guided} at {dial}"] = (few, dial)
    results = compare_again(["unguided", "guided", "tuned", *names], captions=150)
    rows = []
    for name, (few, dial) in names.items():
        rows.append({"few_steps": few, "guidance": dial} | quality(results[name]))
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
    choose_attention(networks.denoiser, dtype, "cpu")
    set_memory_format(networks.denoiser)
    return Student(networks.denoiser, base.noise_schedule(), base.predict, dtype)


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
    main(sys.argv[1:] or [*TRAININGS, "compare", "together", "cost"])
