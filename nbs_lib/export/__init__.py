"""A run's adapter for other programs.

diffusers  pytorch_lora_weights.safetensors, for `load_lora_weights`
kohya      NAME.safetensors, for A1111 and ComfyUI
merged     the base with the adapter added into its weights: a whole pipeline, fp32

Each in a folder of its own, with README.md, the card, and onepass.json, the same for programs. An export is loaded back by
a stock pipeline, and has to draw what the run draws, before it is put in its place.

formats    the three forms, written and loaded back
kohya      the adapter's weights under kohya's names
card       what is told of an export
"""

from ..images.convert import unit_to_uint8
from ..models import _imports as libraries  # noqa: F401  (before what imports them)

# isort: split
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import diffusers
import numpy as np
import torch
from diffusers import DiffusionPipeline
from safetensors import SafetensorError

from ..compare.sampling.sampler import Sampler, load_sampler
from ..config import REFERENCE_PROMPTS
from ..config.validation import ParameterError
from ..files import ROOT, atomic_folder
from ..models import BaseError
from ..models.lora import METADATA_FILE
from ..run.run import Run
from .formats import WRITERS, Source, stock_pipeline
from .kohya import ExportError
from .model_card import export_card, export_metadata

PROMPTS, SEEDS, STEPS = REFERENCE_PROMPTS[:2], [0, 1], 4
"""The pictures that an export is checked by; few-step adapters have steps of their own."""
ALLOWED = 1
"""Largest difference of a picture drawn from an export, in 1/255: what rounding makes of equal ones."""


def export(run: str | Path, to: str, out: str | Path | None = None) -> Path:
    """Write a run's adapter for other programs; the folder that holds it.

    run: name of a run in outputs/, or its folder; to: diffusers, kohya or merged; out: the export's own folder, by default
    export/TO in the run's; an earlier export there is replaced. Relative folders are taken from the project.
    Errors: ParameterError for another `to`, or for no such run; FileNotFoundError where it has no cache or adapter;
    BaseError where the base is no longer the one trained on; ExportError where the export draws other pictures than the
    run, or `out` holds something else.
    """
    if to not in WRITERS:
        raise ParameterError(f"parameter to: given {to!r}; allowed is one of {', '.join(WRITERS)}")
    run = find_run(run)
    if (run.model / METADATA_FILE).is_file():
        raise ExportError(
            f"{run.folder} trained all weights; {run.model} is a whole pipeline already, for any program to load"
        )
    if not out:
        run.check_links()
    folder = (ROOT / Path(out).expanduser() if out else run.folder / "export" / to).resolve()
    check_export_folder(folder)
    sampler = _sampler(run)
    source = Source(
        run,
        sampler.base,
        sampler.resolution,
        export_metadata(run, sampler.pipelines.adapters.layers),
    )
    with draws_same_pixels():
        settings = sampler.resolver.resolve("tuned", STEPS)
        wanted = sampler.sample(settings, PROMPTS, SEEDS).images
    with _without_traces(folder), atomic_folder(folder, replace=True) as part:
        WRITERS[to](part, source)
        (part / "README.md").write_text(export_card(to, source.facts), encoding="utf-8")
        files = sorted([path.name for path in part.iterdir()] + [METADATA_FILE])
        (part / METADATA_FILE).write_text(
            json.dumps(source.facts | {"files": files}, indent=1, ensure_ascii=False) + "\n",
            "utf-8",
        )
        check(part, to, source, wanted, sampler)
    return folder


def draws_same_pixels():
    """A context of full fp32 on a GPU too, whose convolutions round to TF32 unless told otherwise."""
    return torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )


def find_run(run: str | Path) -> Run:
    """A run by its name in outputs/, or by its folder. Errors: ParameterError."""
    for found in (Run(ROOT / "outputs" / run), Run(run)):
        if found.record.is_file() or found.adapter.is_dir() or found.model.is_dir():
            return found
    known = sorted(record.parent.name for record in (ROOT / "outputs").glob("[!.]*/run.json"))
    there = (
        f"there {'are' if len(known) > 1 else 'is'} {', '.join(known)}"
        if known
        else "there is none yet"
    )
    raise ParameterError(
        f"run: given {str(run)!r}; allowed is a run in outputs/ ({there}) or its folder; `onepass run` makes it"
    )


def check_export_folder(folder: Path):
    """Errors: ExportError where the folder holds anything that no earlier export wrote, for it would be lost."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ExportError(
            f"{folder} is a file; give a folder that is new, empty or an earlier export's"
        )
    try:
        ours = set(json.loads((folder / METADATA_FILE).read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError):
        ours = set()
    if others := sorted({path.name for path in folder.iterdir()} - ours):
        raise ExportError(
            f"{folder} holds {others[0]!r}, which an export would replace; give a folder that is new or empty"
        )


def _sampler(run: Run) -> Sampler:
    try:
        return load_sampler(run)
    except BaseError:
        raise
    except (ValueError, SafetensorError) as failure:
        raise ExportError(
            f"the adapter in {run.adapter} cannot be exported ({failure}); train it again"
        ) from failure


@contextmanager
def _without_traces(folder: Path) -> Iterator[None]:
    """The folders above, too, are gone after an error if they were not there before."""
    made = [above for above in folder.parents if not above.exists()]
    try:
        yield
    finally:
        for above in made:
            with suppress(
                OSError
            ):  # it is not empty: all went well, or another process wrote there too
                above.rmdir()


def check(part: Path, to: str, source: Source, wanted: np.ndarray, sampler: Sampler):
    """Hold an export's pictures, drawn by a stock pipeline, against the run's: uint8 [n, h, w, 3]. sampler: of the run.

    Errors: ExportError where they differ by more than rounding, or the export does not load.
    """
    what = f"the {to} export of {source.run.folder}"
    try:
        with draws_same_pixels():
            drawn = draw_references(
                stock_pipeline(part, to, source).to(sampler.device), source.pixels, sampler
            )
    except ExportError:
        raise
    except (ValueError, RuntimeError, OSError, KeyError, SafetensorError) as failure:
        raise ExportError(
            f"{what} does not load in stock diffusers: {' '.join(str(failure).split())}"
        ) from failure
    difference = int(np.abs(drawn.astype(int) - wanted.astype(int)).max())
    if difference > ALLOWED:
        raise ExportError(
            f"{what} does not draw the run's pictures: they differ by up to {difference} of 255, allowed is {ALLOWED}; "
            f"nothing of it was kept, and the adapter in the run is as it was"
        )


def draw_references(pipe: DiffusionPipeline, pixels: int, sampler: Sampler) -> np.ndarray:
    """The pictures that exports are checked by, uint8 [n, pixels, pixels, 3], from noise as the run's sampler has it.

    Errors: ExportError where they are no numbers.
    """
    pipe.set_progress_bar_config(disable=True)
    how, steps = sampler.resolver.sampling, sampler.resolver.tuned_steps or STEPS
    pipe.scheduler = getattr(diffusers, how["scheduler"]).from_config(pipe.scheduler.config)
    noise = [torch.Generator("cpu").manual_seed(seed) for seed in SEEDS]
    size = {"height": pixels, "width": pixels}
    given = {
        "num_inference_steps": steps,
        "guidance_scale": how["guidance_scale"],
        "generator": noise,
    }
    images = pipe(PROMPTS, output_type="np", **given, **size).images
    if not np.isfinite(images).all():
        raise ExportError(
            f"{sampler.resolver.learned} makes pictures that are no numbers (NaN) on base {sampler.base.name!r}, which no program can "
            "show; train it again with a lower learning_rate, or on another base"
        )
    return unit_to_uint8(images)
