"""The share of guidance that an adapter recovers, and its size, by rank and layers.

    python benchmarks/ranks.py     # or: make bench-ranks

Every adapter learns from the same kept answers, in the same steps; the base with and without
guidance is measured once, on the same captions and noise. The figures go to
benchmarks/results/ranks.json, the table to benchmarks/README.md.
"""

import shutil
from datetime import UTC, datetime

import numpy as np
import page

from nbs_lib.compare.measured_set import CAPTION_SEEDS
from nbs_lib.compare.metrics.confidence import bootstrap_interval
from nbs_lib.compare.metrics.image_metrics import recovered_by_picture
from nbs_lib.compare.sampling.sampler import Sampler, load_sampler
from nbs_lib.config import Prepare, Train
from nbs_lib.files import ROOT, link, read_jsonl
from nbs_lib.models import embedded_clip
from nbs_lib.models.lora.layers import TARGETS
from nbs_lib.models.lora.metadata import LORA_FILE
from nbs_lib.picturebook.caption_ranking import caption_ranked_first
from nbs_lib.picturebook.captions import held_out_captions
from nbs_lib.prepare import prepare
from nbs_lib.run.environment import environment
from nbs_lib.run.run import Run
from nbs_lib.train import train

RANKS, STEPS, CAPTIONS = (2, 4, 8, 16, 32, 64), 250, 150
FOLDER = ROOT / "outputs" / "bench-ranks"


def main():
    shutil.rmtree(FOLDER, ignore_errors=True)
    prepared = prepare(Prepare(str(FOLDER / "prepared"), teacher_cache="data")).run
    recovered, sides = {}, {}
    for targets in TARGETS:
        for rank in RANKS:
            run = train_adapter(prepared, targets, rank)
            sampler = load_sampler(run, batch_size=25)
            sides = sides or {name: ranked_first(sampler, name) for name in ("unguided", "guided")}
            tuned = ranked_first(sampler, "tuned")
            low, high = bootstrap_interval([*sides.values(), tuned], recovered_by_picture)
            value, size = (
                recovered_by_picture(*sides.values(), tuned),
                (run.adapter / LORA_FILE).stat().st_size,
            )
            loss = last_loss(run)
            recovered.setdefault(targets, {})[rank] = {
                "value": value,
                "low": low,
                "high": high,
                "bytes": size,
                "loss": loss,
            }
            print(targets, rank, recovered[targets][rank], flush=True)
    rates = {name: float(np.mean(right)) for name, right in sides.items()}
    result = {"steps": STEPS, "captions": CAPTIONS, "rates": rates, "recovered": recovered}
    page.save("ranks", {"date": datetime.now(UTC).date().isoformat(), **environment(), **result})


def train_adapter(prepared: Run, targets: str, rank: int) -> Run:
    """Train an adapter with these layers and this rank on the prepared answers; return its run."""
    run = Run(FOLDER / f"{targets}-{rank}")
    run.folder.mkdir(parents=True)
    link(run.cache, prepared.cache.resolve())
    run.update(stages={"prepare": prepared.stage_record("prepare")})
    options = {
        "mixed_precision": "bf16",
        "teacher": "cached",
        "rank": rank,
        "alpha": float(rank),
        "target_modules": targets,
        "steps": STEPS,
    }
    options |= {"launcher": "subprocess"}  # this process samples, so it may hold CUDA
    train(Train(str(run.folder), **options, validation_steps=0, checkpointing_steps=10**6))
    return run


def last_loss(run: Run) -> float:
    """Return the mean loss of the last quarter of the steps.

    Small differences count, because all runs see the same batches.
    """
    losses = [line["loss"] for line in read_jsonl(run.metrics)]
    return float(np.mean(losses[-len(losses) // 4 :]))


def ranked_first(sampler: Sampler, name: str) -> np.ndarray:
    """Check for each held-out caption if the contender's picture ranks it first: bool [n]."""
    captions = held_out_captions(CAPTIONS)
    texts, seeds = (
        [caption.text for caption in captions],
        [CAPTION_SEEDS + i for i in range(CAPTIONS)],
    )
    images = sampler.sample(sampler.resolver.resolve(name, 25), texts, seeds).images
    return caption_ranked_first(images, captions, embedded_clip(), sampler.base.tokenizer()).numpy()


if __name__ == "__main__":
    main()
