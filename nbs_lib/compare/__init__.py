"""The room behind `3_compare.ipynb`: base and tuned from the same noise, looked at and measured.

ways       how each contender is sampled
weights    adapters in a pipeline's weights for a while
engines    what evaluates a UNet
sample     the pictures of a contender, through a stock pipeline; cost: what they take
kept       pictures that are there already, with their parameters in them; bar: how many of all there are
measure    the numbers; metrics: the functions behind them, intervals: their 95 %, clip: what pictures are scored with
dial       which guidance an adapter scale amounts to
figures    what is drawn of it
  shown    pictures over axes, steps of a sampling, differences
  pages    pictures on pages; plots: numbers drawn; look: their colours and fonts
told       the numbers as text
report     one self-contained HTML page
playground type a prompt, see the contenders; its parts:
  panel      what is asked; choices: the contenders that there are
  drawing    the pictures of the contenders; drawer: the thread that samples them
  viewer     two pictures as a slider, side by side, their difference, one after the other
  gallery    what was drawn, saved and copied
  blind      pairs without names; votes: the file of votes and their tally
  live       what the widgets share

    samples/                  every picture of the comparison, see `kept`
    compare/
      pictures/pNN_sSEED_CONTENDER.png
      grid.png, frontier.png, rates.png, dial.png, differences.png, steps.png, axes.png
      results.json            the numbers, and where the pictures are
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import Compare
from ..config.contenders import slug
from ..files import atomic_folder, hardlink_or_copy
from ..models import _imports as libraries  # noqa: F401  (before what imports them)
from ..run.progress_bar import write_above_bar
from ..run.run import Run
from .evaluate import (
    caption_accuracy,
    captions_of,
    cut_prompts,
    distance,
    draw_captions,
    profile_contenders,
    score_contenders,
)
from .metrics.clip import load_clip
from .metrics.effective_guidance import guidance_turns, measure_effective_guidance
from .progress import counted
from .report.figures import draw_figures
from .report.grids import grid_cells, sample_axes
from .report.summary import summary
from .sampling.long_prompts import no_truncation_warnings
from .sampling.sample_cache import CachedSamples, SampleCache
from .sampling.sampler import load_sampler

__all__ = ["Comparison", "compare", "measure", "summary"]


@dataclass(frozen=True)
class Comparison:
    """A finished comparison. results: as in results.json; report: the HTML page."""

    folder: Path
    results: dict[str, Any]
    report: Path


def compare(config: Compare) -> Comparison:
    """Sample the contenders from the same noise, measure them, and write compare/ and report.html into the run.

    Pictures that an earlier comparison of the run has sampled, ended or not, are taken as they are.
    Errors: FileNotFoundError without a trained adapter; BaseError where the base is not the one it was trained on; ClipError.
    """
    run = Run(config.run)
    run.require("train")
    with run.stage(config) as told:
        sampler = load_sampler(run, config.batch_size, config.tuned_steps, config.scheduler)
        kept = SampleCache(run.samples, sampler, write_above_bar)
        with atomic_folder(run.compare, replace=True) as part, no_truncation_warnings():
            results = measure(kept, config, part)
            text = json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False)
            (part / "results.json").write_text(text + "\n", "utf-8")
        kept.prune()
        from .report.html import write_report

        report = write_report(run)
        told |= {name: results[name] for name in ("guidance_recovered", "time_ratio", "nfe_ratio")}
        told["contenders"] = results["contenders"]
        told["outputs"] = ["compare/results.json", run.report.name]
    return Comparison(run.compare, results, report)


def measure(kept: SampleCache, config: Compare, folder: Path) -> dict[str, Any]:
    """Sample and measure; pictures and figures are written to `folder`, the numbers returned as results.json has them."""
    sampler, drawn = kept.sampler, {}
    clip = load_clip(config.clip, sampler.base)
    for cut in (cuts := cut_prompts(config.prompts, sampler.base.tokenizer())):
        write_above_bar(
            f"the text encoder reads {cut['read']} of the {cut['tokens']} tokens of {cut['prompt'][:60]!r}…"
        )
    axes = config.grid_axes
    grid_cells(sampler, config, axes)  # refused before anything is sampled
    costs = profile_contenders(sampler, config)
    pairs = [(prompt, seed) for prompt in config.prompts for seed in config.seeds]
    prompts, seeds = [prompt for prompt, _ in pairs], [seed for _, seed in pairs]
    judged, asked, real, recovered, rates = (
        drawn,
        prompts,
        None,
        None,
        dict.fromkeys(config.contenders),
    )
    with counted(kept, config, captions_of(sampler, config)):
        for name in config.contenders:
            drawn[name] = kept.sample(name, prompts, seeds, config.steps, config.adapter_scale)
        if captions_of(sampler, config):
            captions, judged, real = draw_captions(kept, config)
        turned = (
            measure_effective_guidance(kept, config) if guidance_turns(sampler, config) else None
        )
        over = sample_axes(kept, config, axes) if axes else None
    if captions_of(sampler, config):
        asked = [caption.text for caption in captions]
        rates, recovered = caption_accuracy(judged, captions, sampler.objective)
    scores = score_contenders(judged, asked, clip, real) if clip else {}
    contenders = {
        name: costs[name] | {"caption_first": rates[name]} | scores.get(name, {}) for name in drawn
    }
    to_guided = {
        name: distance(each, drawn["guided"], prompts)
        for name, each in drawn.items()
        if name != "guided"
    }
    files = save_pictures(drawn, config, folder)
    figures = draw_figures(
        sampler, config, folder, drawn, contenders, to_guided, turned, over, (prompts, seeds)
    )
    if kept.fresh < len(kept):
        write_above_bar(f"{len(kept) - kept.fresh} of {len(kept)} pictures were there already")
    return {
        "base": sampler.base.name,
        "base_origin": sampler.base.origin,
        "base_hash": sampler.base.hash,
        "objective": sampler.objective,
        "whole_model": sampler.whole,
        "sampling": sampler.sampling
        | {"steps": sampler.tuned_steps or config.steps}
        | ({"scheduler": config.scheduler} if config.scheduler else {}),
        "w_train": sampler.w_train,
        "negative": sampler.ways.negative,
        "steps": config.steps,
        "resolution": sampler.resolution,
        "scheduler": config.scheduler or type(sampler.pipe.scheduler).__name__,
        "adapter_scale": config.adapter_scale,
        "seeds": config.seeds,
        "contenders": contenders,
        "clip": clip.name if clip else None,
        "set": {"of": "the data" if real is not None else "guided", "pictures": len(asked)}
        if clip
        else None,
        "guidance_recovered": recovered,
        "to_guided": to_guided,
        "dial": turned,
        "time_ratio": costs["tuned"]["seconds"] / costs["guided"]["seconds"],
        "nfe_ratio": costs["tuned"]["nfe"] / costs["guided"]["nfe"],
        "cut_prompts": cuts,
        "pictures": files,
        "figures": figures,
    }


def save_pictures(
    drawn: dict[str, CachedSamples], config: Compare, folder: Path
) -> list[dict[str, Any]]:
    """Put every picture where it is found by its name; returns prompt, seed and the files of each, relative to `folder`."""
    (folder / "pictures").mkdir()
    slugs, told = {}, []
    for name in drawn:
        plain = slug(name)
        slugs[name] = plain if plain not in slugs.values() else f"{plain}_{len(slugs)}"
    for p, prompt in enumerate(config.prompts):
        for s, seed in enumerate(config.seeds):
            files = {name: f"pictures/p{p:02}_s{seed}_{slugs[name]}.png" for name in drawn}
            for name, file in files.items():
                hardlink_or_copy(drawn[name].files[p * len(config.seeds) + s], folder / file)
            told.append({"prompt": prompt, "seed": seed, "files": files})
    return told
