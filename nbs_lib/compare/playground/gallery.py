"""The gallery: rows of pictures, saved to the run with their metadata or copied as a recipe."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ...config import STAGES, Play
from ...config.contenders import CONTENDERS, slug
from ...config.validation import as_parameters
from ...config.yaml12 import dump
from ...files import append_jsonl, write_atomic
from ...run.run import Run
from ..report.html import picture_url
from .widgets import script, style

TEXT_KEY = "onepass"
"""Key of a saved picture's text, which is JSON."""
THUMBNAIL = 160
"""Pixels of the longer side of a picture in the gallery, at most."""


@dataclass(frozen=True)
class Sample:
    """The picture of one contender, or the reason why there is none.

    image: uint8 [h, w, 3], or None
    note: the cost, or the reason
    metadata: everything that the picture depends on
    """

    image: np.ndarray | None
    note: str
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class GalleryRow:
    """A prompt and a seed, sampled by several contenders from the same noise.

    number: counts the rows from 1
    request: the parameters in the controls
    samples: by contender
    """

    number: int
    prompt: str
    seed: int
    request: Play
    samples: dict[str, Sample]

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


def _first_of_kind(names: list[str], kind: str) -> str:
    """Return the first contender of a kind, or else the first."""
    return next((name for name in names if name.startswith(kind)), names[0])


class Gallery(anywidget.AnyWidget):
    """Rows of pictures, the newest first. The page sends `look` (row, contender) and `save` (row).

    rows: number, prompt, seed, recipe and samples of each; a sample is name, url and note
    messages: about a row, by its number
    """

    _esm = script("gallery")
    _css = style()
    rows = traitlets.List(traitlets.Dict()).tag(sync=True)
    messages = traitlets.Dict().tag(sync=True)


def page_row(run: Run, row: GalleryRow) -> dict[str, Any]:
    """Return a row as the page takes it."""
    samples = []
    for name, sample in row.samples.items():
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
    run.check_links()
    files = []
    time = datetime.now(UTC).isoformat(timespec="seconds")
    stamp = time.replace(":", "").partition("+")[0]
    for name, sample in row.samples.items():
        if sample.image is None:
            continue
        metadata = {"prompt": row.prompt, "seed": row.seed, "contender": name} | sample.metadata
        metadata |= {"run": run.name, "time": time}
        text = PngInfo()
        text.add_itxt(TEXT_KEY, json.dumps(metadata, ensure_ascii=False))
        buffer = BytesIO()
        Image.fromarray(sample.image).save(buffer, "PNG", pnginfo=text)
        file_name = f"{stamp}_{row.number:03}_s{row.seed}_{slug(name)}.png"
        file = run.folder / "gallery" / file_name
        write_atomic(file, buffer.getvalue())
        append_jsonl(run.folder / "gallery" / "gallery.jsonl", {"file": file_name} | metadata)
        files.append(file)
    if not files:
        raise ValueError("there is no picture in this row")
    return files


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
