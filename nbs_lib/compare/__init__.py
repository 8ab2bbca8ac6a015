"""The room of `3_compare.ipynb`: base and tuned from the same noise, looked at and measured.

evaluate      the pictures of every contender, and the numbers
measured_set  the prompts whose pictures are measured
own_pictures  a fine-tuning's own pictures, beside what is drawn for their captions
published_scores   PickScore, HPS v2.1, CMMD and FD-DINOv2, by models of their own
measurements  costs, caption accuracy, scores, diversity and fidelity
sampling      contenders through stock pipelines, and the cache of their pictures
metrics       image metrics, models that see pictures, confidence intervals, effective guidance
report        figures, a summary in text, and one offline HTML page
playground    the widgets of `playground.ipynb`

A comparison writes, beside the run's samples/ and report.html:

    compare/
      pictures/pNN_sSEED_CONTENDER.png
      own.png, grid.png, frontier.png, rates.png, dial.png, differences.png, steps.png, axes.png
      results.json            the numbers, and the files of the pictures
"""

import json
from dataclasses import dataclass
from pathlib import Path

from ..config import Compare
from ..config.contenders import slug
from ..files import atomic_folder, hardlink_or_copy
from ..models import _imports as libraries  # noqa: F401  (before what imports them)
from ..run.progress_bar import write_above_bar
from ..run.run import Run
from .evaluate import Evaluation, evaluate
from .report.figures import draw_figures
from .report.summary import summary
from .sampling.long_prompts import no_truncation_warnings
from .sampling.sample_cache import SampleCache
from .sampling.sampler import load_sampler

__all__ = ["Comparison", "compare", "summary"]


@dataclass(frozen=True)
class Comparison:
    """A finished comparison."""

    folder: Path  # compare/ of the run
    results: dict  # the contents of results.json
    report: Path  # the HTML page


def compare(config: Compare) -> Comparison:
    """Sample the contenders from the same noise, measure them, and write compare/ and report.html.

    Pictures of an earlier comparison of the run, finished or interrupted, are used again.
    Errors: FileNotFoundError without a trained adapter; BaseError if the base is not the one it
    was trained on; ParameterError for the file of prompts; ClipError; VisionModelError.
    """
    run = Run(config.run)
    # before the stage begins: a refused comparison must leave the record as it was
    run.require("train")
    config.file_prompts  # noqa: B018
    with run.stage(config) as record:
        sampler = load_sampler(
            run, config.batch_size, config.tuned_steps, config.scheduler, config.mixed_precision
        )
        cache = SampleCache(run.samples, sampler, write_above_bar)
        # the old comparison stays until the new one is complete
        with atomic_folder(run.compare, replace=True) as folder, no_truncation_warnings():
            evaluation = evaluate(cache, config)
            pictures = save_pictures(evaluation, folder)
            figures = draw_figures(evaluation, folder)
            n_reused = len(cache) - cache.n_sampled
            if n_reused > 0:
                write_above_bar(f"{n_reused} of {len(cache)} pictures were there already")
            results = evaluation.results | {"pictures": pictures, "figures": figures}
            # no NaN: it is no JSON, and other programs would refuse the file
            text = json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False)
            (folder / "results.json").write_text(text + "\n", "utf-8")
        # only now: an interrupted comparison resumes from all pictures
        cache.prune()
        # imported here, because Jinja is needed for the page alone
        from .report.html import write_report

        report = write_report(run)
        names = ("guidance_recovered", "time_ratio", "nfe_ratio", "contenders")
        record |= {name: results[name] for name in names}
        record["outputs"] = ["compare/results.json", run.report.name]
    return Comparison(run.compare, results, report)


def save_pictures(evaluation: Evaluation, folder: Path) -> list[dict]:
    """Write every picture under its name; return prompt, seed and files, relative to `folder`."""
    (folder / "pictures").mkdir()
    slugs = {}
    for name in evaluation.samples:
        plain = slug(name)
        # two names may have one slug
        slugs[name] = f"{plain}_{len(slugs)}" if plain in slugs.values() else plain
    pictures = []
    n_seeds = len(evaluation.config.seeds)
    for index, (prompt, seed) in enumerate(zip(evaluation.prompts, evaluation.seeds, strict=True)):
        files = {}
        for name, samples in evaluation.samples.items():
            files[name] = f"pictures/p{index // n_seeds:02}_s{seed}_{slugs[name]}.png"
            # a link takes no space, and survives the pruning of the cache
            hardlink_or_copy(samples.files[index], folder / files[name])
        pictures.append({"prompt": prompt, "seed": seed, "files": files})
    return pictures
