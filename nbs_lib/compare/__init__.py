"""The room behind `3_compare.ipynb`: base and tuned from the same noise, looked at and measured.

ways       how each contender is sampled
weights    adapters in a pipeline's weights for a while
engines    what evaluates a UNet
sample     the pictures of a contender, through a stock pipeline; cost: what they take
kept       pictures that are there already, with their parameters in them
measure    the numbers; metrics: the functions behind them, intervals: their 95 %, clip: what pictures are scored with
dial       which guidance an adapter scale amounts to
shown      pictures over axes, steps of a sampling, differences
pages      pictures on pages; plots: numbers drawn; look: their colours and fonts
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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..axes import read_axes
from ..config import Compare
from ..contenders import slug
from ..files import beside, link_or_copy
from ..run import Run
from . import pages, plots
from .clip import load_clip
from .dial import measured_dial
from .kept import Drawn, Kept
from .measure import captions_first, cut_prompts, distance, of_captions, scored, timed
from .sample import Sampler, load_sampler
from .shown import difference, over_axes, strip
from .told import summary

__all__ = ["Compared", "compare", "measured", "summary"]
COLUMNS = 5
"""Pictures whose differences are shown."""


@dataclass(frozen=True)
class Compared:
    """A finished comparison. results: as in results.json; report: the HTML page."""

    folder: Path
    results: dict[str, Any]
    report: Path


def compare(config: Compare) -> Compared:
    """Sample the contenders from the same noise, measure them, and write compare/ and report.html into the run.

    Pictures that an earlier comparison of the run has sampled, ended or not, are taken as they are.
    Errors: FileNotFoundError without a trained adapter; BaseError where the base is not the one it was trained on; ClipError.
    """
    run = Run(config.run)
    run.require("train")
    with run.stage(config) as told:
        sampler = load_sampler(run, config.batch_size, config.tuned_steps)
        kept = Kept(run.samples, sampler)
        with beside(run.compare, replace=True) as part:
            results = measured(kept, config, part)
            (part / "results.json").write_text(json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
        kept.prune()
        from .report import write_report

        report = write_report(run)
        told |= {name: results[name] for name in ("guidance_recovered", "time_ratio", "nfe_ratio")}
        told["contenders"] = results["contenders"]
        told["outputs"] = ["compare/results.json", run.report.name]
    return Compared(run.compare, results, report)


def measured(kept: Kept, config: Compare, folder: Path) -> dict[str, Any]:
    """Sample and measure; pictures and figures are written to `folder`, the numbers returned as results.json has them."""
    sampler, drawn = kept.sampler, {}
    clip = load_clip(config.clip, sampler.base)
    for cut in (cuts := cut_prompts(config.prompts, sampler.base.tokenizer())):
        print(f"the text encoder reads {cut['read']} of the {cut['tokens']} tokens of {cut['prompt'][:60]!r}…")
    costs = timed(sampler, config)
    pairs = [(prompt, seed) for prompt in config.prompts for seed in config.seeds]
    prompts, seeds = [prompt for prompt, _ in pairs], [seed for _, seed in pairs]
    for name in config.contenders:
        drawn[name] = kept.sample(name, prompts, seeds, config.steps, config.adapter_scale)
    embedded = sampler.base.name == "embedded" and config.captions > 0
    judged, asked, real, recovered, rates = drawn, prompts, None, None, dict.fromkeys(drawn)
    if embedded:
        captions, judged, real = of_captions(kept, config)
        asked = [caption.text for caption in captions]
        rates, recovered = captions_first(judged, captions, sampler.objective)
    scores = scored(judged, asked, clip, real) if clip else {}
    contenders = {name: costs[name] | {"caption_first": rates[name]} | scores.get(name, {}) for name in drawn}
    turned = measured_dial(kept, config) if config.dial and not sampler.whole else None
    to_guided = {name: distance(each, drawn["guided"], prompts) for name, each in drawn.items() if name != "guided"}
    files = save_pictures(drawn, config, folder)
    figures = draw_figures(kept, config, folder, drawn, contenders, to_guided, turned, (prompts, seeds))
    if kept.fresh < len(kept):
        print(f"{len(kept) - kept.fresh} of {len(kept)} pictures were there already")
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
        "clip": clip.name if clip else None,
        "set": {"of": "the data" if real is not None else "guided", "pictures": len(asked)} if clip else None,
        "guidance_recovered": recovered,
        "to_guided": to_guided,
        "dial": turned,
        "time_ratio": costs["tuned"]["seconds"] / costs["guided"]["seconds"],
        "nfe_ratio": costs["tuned"]["nfe"] / costs["guided"]["nfe"],
        "cut_prompts": cuts,
        "pictures": files,
        "figures": figures,
    }


def draw_figures(
    kept: Kept, config: Compare, folder: Path, drawn: dict[str, Drawn], contenders: dict[str, dict], to_guided: dict[str, dict],
    turned: dict[str, Any] | None, of: tuple[list[str], list[int]],
) -> dict[str, str | None]:  # fmt: skip
    """Write the figures, as far as there is something to be seen on them; by what they show, their files."""
    sampler, (prompts, seeds) = kept.sampler, of
    rated = {name: told["caption_first"] for name, told in contenders.items() if told["caption_first"]}
    notes = {name: f"{told['nfe']:g} NFE\n{told['seconds']:.3g} s a picture" for name, told in contenders.items()}
    notes["guided"] += f"\nw = {sampler.w_train:g}"
    rows = [pages.Row(name, each.images, notes[name]) for name, each in drawn.items()]
    quality = {name: rate["rate"] for name, rate in rated.items()} or {
        name: told["ssim"] for name, told in to_guided.items() if told["ssim"] is not None} | {"guided": 1.0}  # fmt: skip
    few = slice(0, COLUMNS)
    pair = drawn["guided"].images[few], drawn["tuned"].images[few]
    axes = read_axes(config.axes)
    drawing: dict[str, Callable[[], Any] | None] = {
        "grid": lambda: pages.grid(rows, prompts, seeds),
        "rates": (lambda: plots.bars(rated, next(iter(rated.values()))["count"], {name: told["nfe"] for name, told in
                  contenders.items()})) if rated else None,
        "frontier": lambda: plots.frontier(quality, contenders, bool(rated)),
        "dial": (lambda: plots.dial(turned, sampler.w_train)) if turned else None,
        "differences": lambda: pages.differences(("guided", "tuned"), *pair, difference(*pair), prompts[few]),
        "steps": lambda: _steps(sampler, config),
        "axes": (lambda: pages.over_axes(over_axes(kept, config, axes), axes)) if axes else None,
    }  # fmt: skip
    for name, draw in drawing.items():
        if draw:
            figure = draw()
            (figure.save if hasattr(figure, "save") else figure.savefig)(folder / f"{name}.png")
    return {name: f"{name}.png" if draw else None for name, draw in drawing.items()}


def _steps(sampler: Sampler, config: Compare) -> Any:
    """The first prompt on its way from noise, guided and tuned."""
    told = {name: strip(sampler, name, config.prompts[0], config.seeds[0], config.steps, config.adapter_scale)
            for name in ("guided", "tuned")}  # fmt: skip
    of = [pages.table(images[None], [f"step {step}" for step in steps], [name]) for name, (steps, images) in told.items()]
    if told["guided"][0] == told["tuned"][0]:
        steps, _ = told["guided"]
        return pages.table(np.stack([images for _, images in told.values()]), [f"step {step}" for step in steps], list(told))
    return pages.stacked(of)


def save_pictures(drawn: dict[str, Drawn], config: Compare, folder: Path) -> list[dict[str, Any]]:
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
                link_or_copy(drawn[name].files[p * len(config.seeds) + s], folder / file)
            told.append({"prompt": prompt, "seed": seed, "files": files})
    return told
