"""Guidance distillation by loss weights, timesteps and states, after the same training time.

    python benchmarks/fidelity.py               # or: make bench-fidelity
    python benchmarks/fidelity.py NAME...       # some of the variants again

The first variant trains STEPS steps; the others train as many as take the same time, by the median
step of a short trial of each beforehand. All see the same examples, and are measured on the same
held-out captions and noise, with two seeds of training. The figures go to
benchmarks/results/fidelity.json, the table to benchmarks/README.md.
"""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import numpy as np
import page
import torch
from torch import Tensor

from nbs_lib.compare.measured_set import CAPTION_SEEDS
from nbs_lib.compare.metrics.confidence import bootstrap_interval
from nbs_lib.compare.metrics.fidelity import distance_ratio
from nbs_lib.compare.metrics.image_metrics import latent_mse, recovered_by_picture
from nbs_lib.compare.sampling.sampler import Samples, load_sampler
from nbs_lib.config import Prepare, Train
from nbs_lib.diffusion import add_noise
from nbs_lib.files import ROOT, link, read_jsonl
from nbs_lib.models import embedded_clip, find_base
from nbs_lib.picturebook.caption_ranking import caption_ranked_first
from nbs_lib.picturebook.captions import held_out_captions
from nbs_lib.prepare import prepare
from nbs_lib.run.environment import environment
from nbs_lib.run.run import Run
from nbs_lib.train import train
from nbs_lib.train.objectives import OBJECTIVES, guidance

STEPS = 400
TRIAL = 40  # steps of the trial that measures a step's time
SEEDS = (0, 1)
CAPTIONS = 150
SAMPLER_STEPS = 25
ROLLOUT = 8  # coarse steps of a trajectory whose states are trained on
FOLDER = ROOT / "outputs" / "bench-fidelity"
Loss = Callable[..., Tensor]


@dataclass(frozen=True)
class Variant:
    """One way to train.

    options: of `Train`
    loss: takes the place of `guidance`'s
    """

    options: dict = field(default_factory=dict)
    loss: Loss = guidance


def logit_normal(engine, student, batch, config) -> Tensor:
    """Return guidance's loss with timesteps of a logit-normal distribution.

    Source: arXiv 2403.03206, sec. 3.1, with mean 0 and deviation 1.
    """
    uniform = (batch.t.double() + 0.5) / len(student.schedule)
    # the batch's own draw, through the inverse of the distribution
    normal = torch.distributions.Normal(0.0, 1.0).icdf(uniform)
    t = (normal.sigmoid() * len(student.schedule)).long()
    return guidance(engine, student, replace(batch, t=t), config)


def sampler_timesteps(engine, student, batch, config) -> Tensor:
    """Return guidance's loss at the timesteps that DDIM takes in SAMPLER_STEPS steps."""
    skip = len(student.schedule) // SAMPLER_STEPS
    return guidance(engine, student, replace(batch, t=batch.t // skip * skip + 1), config)


def own_trajectories(engine, student, batch, config) -> Tensor:
    """Return guidance's loss, every other batch on states of the student's own sampling.

    Source: on-policy distillation, arXiv 2607.24731.
    """
    return _on_trajectories(engine, student, batch, config, teacher=False)


def teacher_trajectories(engine, student, batch, config) -> Tensor:
    """Return guidance's loss, every other batch on states of the teacher's sampling.

    Source: arXiv 2503.07274.
    """
    return _on_trajectories(engine, student, batch, config, teacher=True)


@torch.no_grad()
def _trajectory(student, batch, teacher: bool) -> tuple[Tensor, Tensor]:
    """Return x_t and t of each row: row by row the states of a coarse sampling."""
    skip = len(student.schedule) // ROLLOUT
    # the phase of the timesteps is the batch's own draw
    times = len(student.schedule) - 1 - int(batch.t[0]) % skip - skip * torch.arange(ROLLOUT)
    times = times.clamp(min=0)
    n = max(1, len(batch.t) // ROLLOUT)
    part = replace(
        batch, context=batch.context[:n], uncond=batch.uncond[:n], w=batch.w[:n], t=batch.t[:n]
    )
    x_t = batch.noise[:n]
    states = []
    for start, end in zip(times, torch.cat([times[1:], times[-1:]]), strict=True):
        t = start.expand(n)
        states.append((x_t, t))
        part = replace(part, t=t)
        predict = student.teacher(x_t, part) if teacher else student(x_t, t, part.context)
        x_0 = student.x_0(predict, x_t, t)
        x_t = add_noise(x_0, student.eps(predict, x_t, t), *student.levels(end.expand(n)))
    return torch.cat([x for x, _ in states]), torch.cat([t for _, t in states])


def _on_trajectories(engine, student, batch, config, teacher: bool) -> Tensor:
    # of every other batch, by a number that is the batch's own
    if int(batch.t.sum()) % 2:
        return guidance(engine, student, batch, config)
    x_t, t = _trajectory(student, batch, teacher)
    n = max(1, len(batch.t) // ROLLOUT)
    rows = torch.arange(n).repeat(ROLLOUT)
    batch = replace(
        batch, x_t=x_t, t=t, context=batch.context[rows], uncond=batch.uncond[rows], w=batch.w[rows]
    )
    return guidance(engine, student, batch, config)


ALL = {"target_modules": "all"}
PLUS_ONE = ALL | {"loss_weighting": "snr_plus_one"}
VARIANTS = {
    "attention, SNR": Variant({"target_modules": "attention"}),
    "attention, SNR + 1": Variant(PLUS_ONE | {"target_modules": "attention"}),
    "all layers, SNR": Variant(ALL),
    "all layers, truncated SNR": Variant(ALL | {"loss_weighting": "truncated_snr"}),
    "all layers, SNR + 1": Variant(PLUS_ONE),
    "the same, logit-normal timesteps": Variant(PLUS_ONE, logit_normal),
    "the same, the sampler's timesteps": Variant(PLUS_ONE, sampler_timesteps),
    "the same, half on its own trajectories": Variant(PLUS_ONE, own_trajectories),
    "the same, half on the teacher's trajectories": Variant(PLUS_ONE, teacher_trajectories),
    "the same, average of weights": Variant(PLUS_ONE | {"ema_decay": 0.98}),
}


def main(names: list[str]):
    last = page.RESULTS / "fidelity.json"
    rows = json.loads(last.read_text())["rows"] if last.exists() and names else {}
    shutil.rmtree(FOLDER, ignore_errors=True)
    prepared = prepare(Prepare(str(FOLDER / "prepared"), max_examples=768)).run
    first = next(iter(VARIANTS))
    budget = step_seconds(prepared, first) * STEPS
    sides: dict[str, Samples] = {}
    for name in names or VARIANTS:
        steps = round(budget / step_seconds(prepared, name))
        runs = [train_variant(prepared, name, steps, seed) for seed in SEEDS]
        sides = sides or {side: sample(runs[0], side) for side in ("unguided", "guided")}
        tuned = [sample(run, "tuned") for run in runs]
        rows[name] = {"steps": steps} | figures(sides["unguided"], sides["guided"], tuned)
        print(name, rows[name], flush=True)
        result = {"captions": CAPTIONS, "seeds": len(SEEDS), "seconds": budget, "rows": rows}
        stamp = {"date": datetime.now(UTC).date().isoformat(), **environment()}
        page.save("fidelity", stamp | result)


def step_seconds(prepared: Run, name: str) -> float:
    """Return the median seconds of a variant's step."""
    run = train_variant(prepared, name, TRIAL, 0, "trial ")
    lines = [line for line in read_jsonl(run.metrics) if "loss" in line]
    times = [line["seconds"] for line in lines]
    # the first steps allocate
    return median(np.diff(times)[len(times) // 4 :])


def train_variant(prepared: Run, name: str, steps: int, seed: int, prefix: str = "") -> Run:
    """Train one adapter on the prepared examples; return its run."""
    run = new_run(FOLDER / f"{prefix}{list(VARIANTS).index(name)}-{seed}", prepared)
    variant = VARIANTS[name]
    options = {"mixed_precision": "bf16", "steps": steps, "seed": seed, "log_every": 1}
    options |= {"validation_steps": 0, "checkpointing_steps": 10**6} | variant.options
    objective = OBJECTIVES["guidance"]
    # training processes are forks of this one, and find it there
    OBJECTIVES["guidance"] = replace(objective, loss=variant.loss)
    try:
        train(Train(str(run.folder), **options))
    finally:
        OBJECTIVES["guidance"] = objective
    return run


def new_run(folder: Path, prepared: Run) -> Run:
    """Return an empty run in a folder, on the examples of a prepared one."""
    run = Run(folder)
    shutil.rmtree(run.folder, ignore_errors=True)
    run.folder.mkdir(parents=True)
    link(run.cache, prepared.cache.resolve())
    run.update(stages={"prepare": prepared.stage_record("prepare")})
    return run


def sample(run: Run, contender: str) -> Samples:
    """Return the contender's pictures and latents of the held-out captions."""
    sampler = load_sampler(run, batch_size=25)
    texts = [caption.text for caption in held_out_captions(CAPTIONS)]
    seeds = [CAPTION_SEEDS + i for i in range(CAPTIONS)]
    settings = sampler.resolver.resolve(contender, SAMPLER_STEPS)
    return sampler.sample(settings, texts, seeds)


def figures(unguided: Samples, guided: Samples, tuned: list[Samples]) -> dict:
    """Return distance ratio, share of nearer pictures and recovered guidance, over both seeds."""
    base = latent_mse(unguided.latents, guided.latents)
    distances = [latent_mse(samples.latents, guided.latents) for samples in tuned]
    mean = np.mean(distances, axis=0)
    low, high = bootstrap_interval([mean, base], distance_ratio)
    hits = [ranked_first(samples) for samples in (unguided, guided, *tuned)]
    tuned_hits = np.mean(hits[2:], axis=0)
    recovered = recovered_by_picture(*hits[:2], tuned_hits)
    recovered_low, recovered_high = bootstrap_interval(
        [*hits[:2], tuned_hits], recovered_by_picture
    )
    return {
        "distance_ratio": {"value": distance_ratio(mean, base), "low": low, "high": high},
        "by_seed": [distance_ratio(distance, base) for distance in distances],
        "nearer": float(np.mean([distance < base for distance in distances])),
        "recovered": {"value": recovered, "low": recovered_low, "high": recovered_high},
    }


def ranked_first(samples: Samples) -> np.ndarray:
    """Return for each caption whether its picture ranks it first, bool [n]."""
    captions = held_out_captions(CAPTIONS)
    tokenizer = find_base("embedded").tokenizer()
    return caption_ranked_first(samples.images, captions, embedded_clip(), tokenizer).numpy()


if __name__ == "__main__":
    main(sys.argv[1:])
