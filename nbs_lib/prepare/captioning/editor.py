"""A folder's captions beside their pictures, edited in the notebook and saved to metadata.jsonl."""

import json
import posixpath
from collections.abc import Mapping
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from ...config import Prepare
from ...config.validation import setting
from ...files import from_project, parse_object, write_atomic
from ...images.html import data_url
from ...run.run import Run
from ..captions import clean_caption
from ..examples import Example, ImageRef
from ..images import ImageError, fit, upright
from ..sources import open_source, source_options
from ..sources.folder import METADATA_STEM, ImageFolder
from ..store.database import Database
from .drafts import Drafts, content_digest, is_captionless, open_drafts

FILE_COLUMN, TEXT_COLUMN = "file_name", "text"  # of a metadata.jsonl
MAX_ROWS = 200  # a page of more is slow to scroll
SIDE = 128  # pixels of a picture


class Row(NamedTuple):
    """A picture with its caption, which is somebody's own or a draft."""

    image: ImageRef
    caption: str
    drafted: bool


def caption_editor(config: Prepare) -> Any:
    """Return the captions of a folder beside their pictures, as widgets, with a button that saves.

    Without the parameter `captioner`, and for another source than a folder, nothing is shown.
    """
    # only a notebook displays it
    from IPython.display import HTML

    if not config.captioner:
        return HTML("")
    source = open_source(config.source, source_options(config, config.max_examples))
    if not isinstance(source, ImageFolder):
        return HTML("<p>The captions of a folder of images can be edited here.</p>")
    with closing(Database(Run(config.run).cache_store)) as database:
        rows = read_captions(source, open_drafts(config, database))
    return _widgets(source.folder, rows)


def read_captions(source: ImageFolder, drafts: Drafts) -> dict[str, Row]:
    """Return a folder's first pictures with their captions, or with their drafts, by file name."""
    rows = {}
    for item in source:
        if len(rows) == MAX_ROWS:
            break
        # a name that is not UTF-8 was changed for display, and names no file
        if not (source.folder / item.id).is_file():
            continue
        if isinstance(item, Example):
            rows[item.id] = Row(item.image, item.caption, drafted=False)
        elif is_captionless(item):
            digest = content_digest(item.image)
            rows[item.id] = Row(item.image, drafts.find([digest]).get(digest, ""), drafted=True)
    return rows


def save_captions(folder: Path, captions: Mapping[str, str]) -> Path:
    """Write captions into a folder's metadata.jsonl and return its path.

    Lines of other images stay as they are, and so do other columns. An empty caption is left out.
    captions: by file name, relative to the folder
    Errors: CaptionError; OSError; ValueError for a metadata.jsonl that is no text
    """
    path = folder / f"{METADATA_STEM}.jsonl"
    cleaned = {name: clean_caption(text) for name, text in captions.items()}
    cleaned = {name: text for name, text in cleaned.items() if text}
    content = path.read_text("utf-8-sig") if path.is_file() else ""
    lines = []
    # not splitlines(), which also splits at separators that a caption may have
    for line in filter(str.strip, content.split("\n")):
        row = parse_object(line) or {}
        # "./a.png" and "a.png" are one file
        name = posixpath.normpath(str(row.get(FILE_COLUMN, "")))
        if name in cleaned:
            line = _json_line(row | {TEXT_COLUMN: cleaned.pop(name)})
        lines.append(line)
    lines += [_json_line({FILE_COLUMN: name, TEXT_COLUMN: text}) for name, text in cleaned.items()]
    write_atomic(path, "".join(f"{line}\n" for line in lines))
    return path


def _json_line(row: dict) -> str:
    return json.dumps(row, ensure_ascii=False)


def _widgets(folder: Path, rows: dict[str, Row]) -> Any:
    # only a notebook needs them
    from ipywidgets import HTML, Button, HBox, Layout, Textarea, VBox

    areas = {}
    lines = []
    for name, row in rows.items():
        areas[name] = Textarea(row.caption, layout=Layout(width="32em", height="5em"))
        # what a screen reader announces
        areas[name].tooltip = f"caption of {name}"
        lines.append(HBox([HTML(_picture(name, row.image)), areas[name]]))
    button = Button(description="Save captions", button_style="primary")
    drafted = sum(row.drafted for row in rows.values())
    state = HTML(f"<p>{len(rows)} pictures, {drafted} with a draft that is not saved yet.</p>")

    def save(_):
        state.value = _save_edited(folder, rows, areas)

    button.on_click(save)
    return VBox([*lines, HBox([button, state])])


def _save_edited(folder: Path, rows: dict[str, Row], areas: dict[str, Any]) -> str:
    """Save the captions of text areas that are drafts or were edited; return a message as HTML."""
    new = {}
    for name, row in rows.items():
        # a caption in a text file stays there until it is edited
        if row.drafted or areas[name].value != row.caption:
            new[name] = areas[name].value
    # an error in a callback shows nowhere
    try:
        path = save_captions(folder, new)
    except (OSError, ValueError) as failure:
        return Markup("<p role=alert>Not saved: {}.</p>").format(str(failure))
    note = "Saved to {}. Run this notebook again with {}: edited captions are encoded then."
    again = setting("prepare", "replace", True)
    return Markup(f"<p>{note}</p>").format(from_project(path), again)


def _picture(name: str, image: ImageRef) -> str:
    try:
        picture = fit(upright(image.load()[0]), SIDE, SIDE)
    except ImageError as fault:
        return Markup("<p>{}: {}</p>").format(name, str(fault))
    buffer = BytesIO()
    picture.save(buffer, "PNG")
    return Markup('<img src="{}" alt="{}" title="{}">').format(
        data_url(buffer.getvalue()), name, name
    )
