"""The gallery's files: every picture of the playground as a PNG in the run, and read again.

    RUN/gallery/TIME_NNN_sSEED_CONTENDER.png
    RUN/gallery/gallery.jsonl   a line for each picture: file, prompt, seed, contender, everything
                                that the picture depends on, nfe, seconds, request (the controls
                                that differ from their defaults), run, time

A PNG holds its line as the text `onepass`, and as `parameters` in the form of A1111. The pictures
of a row have one time, prompt and seed.
"""

import json
import re
import warnings
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ....config import Play
from ....config.contenders import slug
from ....config.validation import as_parameters
from ....files import append_jsonl, read_jsonl, write_atomic, write_jsonl
from ....run.run import Run
from .infotext import INFOTEXT_KEY, infotext
from .rows import GalleryRow, Sample, cost_note

TEXT_KEY = "onepass"  # key of a PNG's text, which is JSON
FOLDER, LINES = "gallery", "gallery.jsonl"
FILE_NAME = re.compile(r"\w[\w.+-]*\.png")  # of ours; another name could lead elsewhere


def complete_row(run: Run, row: GalleryRow, time: str, index: int) -> GalleryRow:
    """Return a new row with its time, and with all that is saved in its pictures' metadata.

    index: of the row among those of this time
    """
    request = as_parameters(row.request)
    usual = as_parameters(Play())
    shared = {
        "request": {name: value for name, value in request.items() if value != usual[name]},
        "run": run.name,
        "time": time,
    }
    # the folder of the run says which it is, also after the run was moved
    shared["request"].pop("run", None)
    # no colon: other systems allow none in a file's name
    stamp = time.replace(":", "").partition("+")[0]
    samples = {}
    for name, sample in row.samples.items():
        file = f"{stamp}_{index:03}_s{row.seed}_{slug(name)}.png"
        picture = {"file": file, "prompt": row.prompt, "seed": row.seed, "contender": name}
        samples[name] = replace(sample, metadata=picture | sample.metadata | shared)
    return replace(row, samples=samples, time=time)


def now() -> str:
    """Return the time as it is recorded, to the millisecond: it tells rows apart."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def save(run: Run, row: GalleryRow):
    """Write the pictures of a complete row, and a line for each.

    Errors: OSError of the disk; RunError for a linked folder.
    """
    # a link in the run could lead the files out of it
    run.check_links()
    folder = run.folder / FOLDER
    for sample in row.pictures:
        write_atomic(folder / sample.metadata["file"], png(sample))
        # after the picture: a line must not name a file that does not exist
        append_jsonl(folder / LINES, sample.metadata)


def png(sample: Sample) -> bytes:
    """Return a picture with its metadata as a PNG."""
    height, width = sample.image.shape[:2]
    text = PngInfo()
    text.add_itxt(TEXT_KEY, json.dumps(sample.metadata, ensure_ascii=False))
    # add_text: Latin-1 where that is enough, as A1111 writes it
    text.add_text(INFOTEXT_KEY, infotext(sample.metadata, width, height))
    buffer = BytesIO()
    Image.fromarray(sample.image).save(buffer, "PNG", pnginfo=text)
    return buffer.getvalue()


def archive(rows: Iterable[GalleryRow]) -> bytes:
    """Return all pictures of these rows as a zip."""
    buffer = BytesIO()
    # stored: PNGs do not become smaller
    with ZipFile(buffer, "w", ZIP_STORED) as zipped:
        for row in rows:
            for sample in row.pictures:
                zipped.writestr(sample.metadata["file"], png(sample))
    return buffer.getvalue()


def read_rows(run: Run, count: int) -> list[GalleryRow]:
    """Return the last rows that were saved, the oldest first; damaged pictures are left out."""
    lines_by_row = {}
    for line in read_jsonl(run.folder / FOLDER / LINES):
        key = tuple(str(line.get(name)) for name in ("time", "prompt", "seed"))
        lines_by_row.setdefault(key, []).append(line)
    rows = []
    for lines in list(lines_by_row.values())[-count:]:
        try:
            rows.append(_read_row(run.folder / FOLDER, lines))
        except Exception:
            # of many types: a damaged file must not keep the page from opening
            continue
    return rows


def _read_row(folder: Path, lines: list[dict]) -> GalleryRow:
    first = lines[0]
    samples = {}
    for line in lines:
        note = cost_note(line["nfe"], line["seconds"])
        samples[line["contender"]] = Sample(_read_png(folder, line["file"]), note, line)
    # galleries of earlier versions have no request
    request = {
        "prompts": [first["prompt"]],
        "seeds": [first["seed"]],
        "contenders": list(samples),
        "steps": first["steps"],
    }
    request = Play(**request | first.get("request", {}))
    return GalleryRow(first["prompt"], first["seed"], request, samples, first["time"])


def _read_png(folder: Path, name: str) -> np.ndarray:
    if not FILE_NAME.fullmatch(name) or (folder / name).is_symlink():
        raise ValueError(f"{name!r} is no picture of the gallery")
    # Pillow only warns of pictures that are too large
    with warnings.catch_warnings(action="error"), Image.open(folder / name, formats=["PNG"]) as png:
        return np.asarray(png.convert("RGB"))


def remove(run: Run, row: GalleryRow):
    """Remove a row's pictures and their lines. Errors: as `save`."""
    run.check_links()
    folder = run.folder / FOLDER
    names = {sample.metadata["file"] for sample in row.pictures}
    # the lines first: a line must not name a file that does not exist
    lines = [line for line in read_jsonl(folder / LINES) if line.get("file") not in names]
    write_jsonl(folder / LINES, lines)
    for name in names:
        if FILE_NAME.fullmatch(name):
            (folder / name).unlink(missing_ok=True)
