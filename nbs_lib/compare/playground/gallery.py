"""The gallery: rows of pictures, saved to the run with their metadata or copied as a recipe."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from traitlets import Dict, List

from ...config import STAGES, Play
from ...config.contenders import CONTENDERS, slug
from ...config.validation import as_parameters
from ...config.yaml12 import dump
from ...files import append_jsonl, write_atomic
from ...run.run import Run
from ..report.html import picture_url
from .widgets import LiveWidget, script, style

TEXT_KEY = "onepass"  # key of a saved picture's text, which is JSON
THUMBNAIL = 160  # pixels of the longer side of a picture in the gallery, at most


@dataclass(frozen=True)
class Sample:
    """The picture of one contender, or the reason why there is none."""

    image: np.ndarray | None  # uint8 [h, w, 3], or None
    note: str  # the cost, or the reason
    metadata: dict = field(default_factory=dict)  # everything that the picture depends on


@dataclass(frozen=True)
class GalleryRow:
    """A prompt and a seed, sampled by several contenders from the same noise."""

    number: int  # counts the rows from 1
    prompt: str
    seed: int
    request: Play  # the parameters in the controls
    samples: dict[str, Sample]  # by contender

    def sides(self, name: str, last: str) -> tuple[str, str]:
        """Return the contenders at the left and the right of the viewer.

        name: the right one, "" for one that failed, or else `tuned`
        last: goes to the left, "" for `guided`
        """
        names = list(self.samples)
        if not name:
            failed = [other for other in names if self.samples[other].image is None]
            name = failed[0] if failed else _first_of_kind(names, "tuned")
        others = [other for other in names if other != name] or [name]
        before = last if last in others else _first_of_kind(others, "guided")
        return before, name


def _first_of_kind(names, kind):
    """Return the first contender of a kind, or else the first."""
    return next((name for name in names if name.startswith(kind)), names[0])


class Gallery(LiveWidget):
    """Rows of pictures, the newest first. The page sends `look` and `save`."""

    _esm = script("gallery")
    _css = style()
    # number, prompt, seed, recipe and samples of each; a sample is name, url and note
    rows = List(Dict())
    messages = Dict()  # about a row, by its number


def page_row(run: Run, row: GalleryRow) -> dict:
    """Return a row as the page takes it."""
    samples = []
    for name, sample in row.samples.items():
        # reduced: the page holds every row until it is closed
        url = "" if sample.image is None else picture_url(thumbnail(sample.image))
        samples.append({"name": name, "note": sample.note, "url": url})
    return {
        "number": row.number,
        "prompt": row.prompt,
        "seed": row.seed,
        "samples": samples,
        "recipe": recipe(run, row.request),
    }


def thumbnail(image: np.ndarray) -> np.ndarray:
    """Return a picture reduced to THUMBNAIL; small ones stay as they are."""
    picture = Image.fromarray(image)
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    return np.asarray(picture)


def save(run: Run, row: GalleryRow) -> list[Path]:
    """Write a row's pictures into RUN/gallery, and a line for each into gallery.jsonl.

    Each PNG holds its metadata as text.
    Errors: ValueError if there is no picture; OSError of the disk; RunError for a linked folder.
    """
    # a link in the run could lead the files out of it
    run.check_links()
    folder = run.folder / "gallery"
    files = []
    time = datetime.now(UTC).isoformat(timespec="seconds")
    # no colon: other systems allow none in a file's name
    stamp = time.replace(":", "").partition("+")[0]
    for name, sample in row.samples.items():
        if sample.image is None:
            continue
        metadata = {"prompt": row.prompt, "seed": row.seed, "contender": name} | sample.metadata
        metadata |= {"run": run.name, "time": time}
        file = folder / f"{stamp}_{row.number:03}_s{row.seed}_{slug(name)}.png"
        write_atomic(file, _png(sample.image, metadata))
        # after the picture: a line must not name a file that does not exist
        append_jsonl(folder / "gallery.jsonl", {"file": file.name} | metadata)
        files.append(file)
    if not files:
        raise ValueError("there is no picture in this row")
    return files


def _png(image, metadata):
    text = PngInfo()
    text.add_itxt(TEXT_KEY, json.dumps(metadata, ensure_ascii=False))
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "PNG", pnginfo=text)
    return buffer.getvalue()


def recipe(run: Run, request: Play) -> str:
    """Return a recipe whose comparison is a request, as YAML for `onepass run`."""
    stages = {}
    # with the run's own preparation and training, a run of the same name repeats neither
    for stage in ("prepare", "train"):
        defaults = as_parameters(STAGES[stage]())
        parameters = run.stage_record(stage).get("parameters", {})
        changed = {
            name: parameters[name]
            for name, default in defaults.items()
            if name != "run" and parameters.get(name, default) != default
        }
        if changed:
            stages[stage] = changed
    # every comparison must have the three standard contenders
    contenders = list(dict.fromkeys([*CONTENDERS, *request.contenders]))
    stages["compare"] = {
        "prompts": request.prompts,
        "seeds": request.seeds,
        "contenders": contenders,
        "steps": request.steps,
    }
    if request.scheduler:
        stages["compare"]["scheduler"] = request.scheduler
    return dump(stages)
