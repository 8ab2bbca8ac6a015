"""What was drawn on the playground: kept while the page is open, saved to the run with its parameters, told as a recipe."""

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

METADATA_KEY = "onepass"
"""Of a saved picture's text metadata; it holds JSON."""
THUMBNAIL = 160
"""Pixels of the longer side of a picture in the gallery, at most."""


@dataclass(frozen=True)
class Sample:
    """What one contender came to. image: uint8 [h, w, 3], None where there is none; note: its cost, or why there is none."""

    image: np.ndarray | None
    note: str
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class GalleryRow:
    """A prompt and a seed, drawn by several contenders from the same noise. asked: what the controls said."""

    number: int
    prompt: str
    seed: int
    asked: Play
    shots: dict[str, Sample]


class Gallery(anywidget.AnyWidget):
    """Rows of pictures, the newest first. The page sends `look` (row, contender) and `save` (row).

    rows: of each number, prompt, seed, recipe and shots; a shot is name, url and note. said: by row, what came of it.
    """

    _esm, _css = script("gallery"), style()
    rows = traitlets.List(traitlets.Dict()).tag(sync=True)
    said = traitlets.Dict().tag(sync=True)


def row(run: Run, drawn: GalleryRow) -> dict[str, Any]:
    """A row of the gallery, as the page has it."""
    shots = [
        {
            "name": name,
            "note": shot.note,
            "url": "" if shot.image is None else picture_url(thumbnail(shot.image)),
        }
        for name, shot in drawn.shots.items()
    ]
    told = {"number": drawn.number, "prompt": drawn.prompt, "seed": drawn.seed}
    return told | {"shots": shots, "recipe": recipe(run, drawn.asked)}


def thumbnail(image: np.ndarray) -> np.ndarray:
    """A picture for the gallery; small ones stay as they are."""
    picture = Image.fromarray(image)
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    return np.asarray(picture)


def save(run: Run, drawn: GalleryRow, facts: dict[str, Any]) -> list[Path]:
    """Write the pictures into RUN/gallery, each with its parameters as text in the PNG, and a line in gallery.jsonl.

    facts: what they have in common, such as the base. Errors: ValueError where there is no picture; OSError of the disk.
    """
    run.check_links()
    files, when = [], datetime.now(UTC).isoformat(timespec="seconds")
    for name, shot in drawn.shots.items():
        if shot.image is None:
            continue
        told = (
            {"prompt": drawn.prompt, "seed": drawn.seed, "contender": name}
            | shot.facts
            | facts
            | {"time": when}
        )
        picture = PngInfo()
        picture.add_itxt(METADATA_KEY, json.dumps(told, ensure_ascii=False))
        Image.fromarray(shot.image).save(buffer := BytesIO(), "PNG", pnginfo=picture)
        stamp = when.replace(":", "").partition("+")[0]
        files.append(
            run.folder / "gallery" / f"{stamp}_{drawn.number:03}_s{drawn.seed}_{slug(name)}.png"
        )
        write_atomic(files[-1], buffer.getvalue())
        append_jsonl(run.folder / "gallery" / "gallery.jsonl", {"file": files[-1].name} | told)
    if not files:
        raise ValueError("there is no picture in this row")
    return files


def recipe(run: Run, asked: Play) -> str:
    """The run's own recipe, with what was drawn as its comparison: YAML for `onepass run`.

    What was prepared and trained is in it, so that a run of the same name keeps both and is compared anew.
    """
    stages = {}
    for stage in ("prepare", "train"):
        own, given = as_parameters(STAGES[stage]()), run.stage_record(stage).get("parameters", {})
        changed = {
            name: given[name]
            for name in own
            if name != "run" and given.get(name, own[name]) != own[name]
        }
        stages |= {stage: changed} if changed else {}
    contenders = list(dict.fromkeys([*CONTENDERS, *asked.contenders]))  # a comparison has the three
    told = {
        "prompts": asked.prompts,
        "seeds": asked.seeds,
        "contenders": contenders,
        "steps": asked.steps,
    }
    told |= {"scheduler": asked.scheduler} if asked.scheduler else {}
    return dump(stages | {"compare": told})
