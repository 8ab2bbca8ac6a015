"""The room behind `3_compare.ipynb`: base and tuned from the same noise, looked at and measured.

contenders  who is compared
sample   the pictures of the contenders, through one stock pipeline, each with its cost
metrics  whether pictures show what was asked, and how near they are to the guided ones
figures  the grid of pictures, the rates, quality against cost
report   one self-contained HTML page
viewer   the side-by-side slider

    compare/
      pictures/pNN_sSEED_CONTENDER.png
      grid.png, rates.png, frontier.png
      results.json            the numbers, and where the pictures are
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from ..config import Compare
from ..contenders import CONTENDERS
from ..files import beside
from ..models import embedded_clip
from ..picturebook.captions import held_out_captions
from ..run import Run
from .figures import Row, bars, frontier, grid
from .metrics import bootstrap_interval, caption_first, latent_mse, psnr, recovered_by_picture, ssim
from .sample import Sampler, Samples, load_sampler

REPETITIONS = 3
"""How often the timed batch is sampled; the median counts."""
CAPTION_SEEDS = 10_000
"""Seed of the first held-out caption's picture; the next ones follow."""


@dataclass(frozen=True)
class Compared:
    """A finished comparison. results: as in results.json; report: the HTML page."""

    folder: Path
    results: dict[str, Any]
    report: Path


def compare(config: Compare) -> Compared:
    """Sample the contenders from the same noise, measure them, and write compare/ and report.html into the run.

    Errors: FileNotFoundError without a trained adapter; BaseError where the base is not the one it was trained on.
    """
    run = Run(config.run)
    run.require("train")
    with run.stage(config) as told:
        with beside(run.compare, replace=True) as part:
            results = measured(load_sampler(run, config.batch_size, config.tuned_steps), config, part)
            (part / "results.json").write_text(json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
        from .report import write_report

        report = write_report(run)
        told |= {name: results[name] for name in ("guidance_recovered", "time_ratio", "nfe_ratio")}
        told["contenders"] = results["contenders"]
        told["outputs"] = ["compare/results.json", run.report.name]
    return Compared(run.compare, results, report)


def measured(sampler: Sampler, config: Compare, folder: Path) -> dict[str, Any]:
    """Sample and measure; pictures and figures are written to `folder`, the numbers returned as results.json has them."""
    costs = timed(sampler, config)
    pairs = [(prompt, seed) for prompt in config.prompts for seed in config.seeds]
    prompts, seeds = [prompt for prompt, _ in pairs], [seed for _, seed in pairs]
    drawn = {name: sampler.sample(name, prompts, seeds, config.steps, config.adapter_scale) for name in config.contenders}
    to_guided = {name: distance(each, drawn["guided"]) for name, each in drawn.items() if name != "guided"}
    embedded = sampler.base.name == "embedded" and config.captions > 0
    rates, recovered = captions_first(sampler, config) if embedded else (dict.fromkeys(config.contenders), None)
    contenders = {name: costs[name] | {"caption_first": rates[name]} for name in config.contenders}
    notes = {name: f"{cost['nfe']:g} NFE\n{cost['seconds']:.3g} s a picture" for name, cost in costs.items()}
    notes["guided"] += f"\nw = {sampler.w_train:g}"
    grid([Row(name, drawn[name].images, notes[name]) for name in config.contenders], prompts, seeds).save(folder / "grid.png")
    if embedded:
        nfe = {name: cost["nfe"] for name, cost in costs.items()}
        bars(rates, config.captions, nfe).savefig(folder / "rates.png")
    quality = {name: rate["rate"] for name, rate in rates.items()} if embedded else {
        name: told["ssim"] for name, told in to_guided.items()} | {"guided": 1.0}  # fmt: skip
    frontier(quality, costs, embedded).savefig(folder / "frontier.png")
    return {
        "base": sampler.base.name,
        "base_origin": sampler.base.origin,
        "base_hash": sampler.base.hash,
        "objective": sampler.objective,
        "whole_model": sampler.whole,
        "sampling": sampler.sampling | {"steps": sampler.tuned_steps or config.steps},
        "w_train": sampler.w_train,
        "steps": config.steps,
        "resolution": sampler.resolution,
        "scheduler": type(sampler.pipe.scheduler).__name__,
        "adapter_scale": config.adapter_scale,
        "seeds": config.seeds,
        "contenders": contenders,
        "guidance_recovered": recovered,
        "to_guided": to_guided,
        "time_ratio": costs["tuned"]["seconds"] / costs["guided"]["seconds"],
        "nfe_ratio": costs["tuned"]["nfe"] / costs["guided"]["nfe"],
        "pictures": save_pictures(drawn, config, folder),
        "figures": {"grid": "grid.png", "rates": "rates.png" if embedded else None, "frontier": "frontier.png"},
    }


def timed(sampler: Sampler, config: Compare) -> dict[str, dict[str, Any]]:
    """NFE, seconds a picture and memory of each contender, on one batch that they sample in turns.

    A round before the first is thrown away: the first pass at a new shape is slower.
    """
    pairs = [(prompt, seed) for seed in config.seeds for prompt in config.prompts][: sampler.batch_size]
    batch = [prompt for prompt, _ in pairs], [seed for _, seed in pairs]
    for name in config.contenders:
        sampler.sample(name, *batch, 1, config.adapter_scale)
    rounds = [
        {name: sampler.sample(name, *batch, config.steps, config.adapter_scale) for name in config.contenders}
        for _ in range(REPETITIONS)
    ]
    last = rounds[-1]
    return {
        name: {
            "nfe": last[name].nfe,
            "seconds": median(each[name].seconds for each in rounds),
            "memory_mib": round(max(each[name].memory_mib for each in rounds), 1),
            "memory_kind": last[name].memory_kind,
        }
        for name in config.contenders
    }


def captions_first(sampler: Sampler, config: Compare) -> tuple[dict[str, dict[str, Any]], dict[str, Any] | None]:
    """How often each contender's picture of a held-out caption is told from its near misses, and the guidance recovered."""
    captions = held_out_captions(config.captions)
    texts, seeds = [caption.text for caption in captions], [CAPTION_SEEDS + i for i in range(len(captions))]
    clip, tokenizer = embedded_clip(), sampler.base.tokenizer()
    first = {}
    for name in config.contenders:
        images = sampler.sample(name, texts, seeds, config.steps, config.adapter_scale).images
        first[name] = caption_first(images, captions, clip, tokenizer).numpy()
    rates = {}
    for name, right in first.items():
        low, high = bootstrap_interval(right, np.mean)
        rates[name] = {"rate": float(right.mean()), "low": low, "high": high, "count": len(right)}
    three = [first[name] for name in CONTENDERS]
    recovered = recovered_by_picture(*three)
    if recovered is None or sampler.objective == "finetune":  # which is to learn images, not guidance
        return rates, None
    low, high = bootstrap_interval(three, recovered_by_picture)
    return rates, {"value": recovered, "low": low, "high": high}


def distance(a: Samples, b: Samples) -> dict[str, float | None]:
    """How far pictures are from others; a PSNR that is infinite is None, for JSON has no such number."""
    decibels = psnr(a.images, b.images)
    return {
        "latent_mse": latent_mse(a.latents, b.latents),
        "ssim": ssim(a.images, b.images),
        "psnr": decibels if math.isfinite(decibels) else None,
    }


def save_pictures(drawn: dict[str, Samples], config: Compare, folder: Path) -> list[dict[str, Any]]:
    """Write every picture as a PNG; returns prompt, seed and the files of each, relative to `folder`."""
    (folder / "pictures").mkdir()
    told = []
    for p, prompt in enumerate(config.prompts):
        for s, seed in enumerate(config.seeds):
            files = {name: f"pictures/p{p:02}_s{seed}_{name}.png" for name in drawn}
            for name, file in files.items():
                Image.fromarray(drawn[name].images[p * len(config.seeds) + s]).save(folder / file)
            told.append({"prompt": prompt, "seed": seed, "files": files})
    return told


def summary(compared: Compared) -> str:
    """The numbers as a table of text, and where the report is."""
    results = compared.results
    lines = [f"{'':13}{'right caption first':>19}{'NFE':>6}{'s a picture':>13}{'MiB':>8}"]
    for name, told in results["contenders"].items():
        rate = told["caption_first"]
        shown = f"{_percent(rate['rate'])} [{_percent(rate['low'])}, {_percent(rate['high'])}]" if rate else "–"
        lines.append(f"{name:13}{shown:>19}{told['nfe']:>6g}{told['seconds']:>13.3g}{told['memory_mib']:>8.0f}")
    recovered = results["guidance_recovered"]
    if recovered:
        interval = f" [{_percent(recovered['low'])}, {_percent(recovered['high'])}]" if recovered["low"] is not None else ""
        lines.append(f"guidance recovered: {_percent(recovered['value'])}{interval}")
    elif results["contenders"]["guided"]["caption_first"] and results["objective"] != "finetune":
        lines.append("guidance recovered: not defined, for guidance gained nothing on these captions")
    lines.append(f"tuned takes {results['time_ratio']:.2f} of guided's time and {results['nfe_ratio']:g} of its NFE")
    memory = results["contenders"]["tuned"]["memory_kind"]
    lines.append(f"MiB: {memory}; [ , ]: 95 % intervals; w = {results['w_train']:g}, {results['steps']} steps")
    return "\n".join([*lines, f"report: {compared.report}"])


def _percent(rate: float) -> str:
    return f"{round(100 * rate)} %"
