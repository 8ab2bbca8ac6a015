"""A folder's captions beside their pictures, edited in the notebook and saved to metadata.jsonl."""

from collections.abc import Mapping
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ...config import Prepare
from ...config.validation import setting
from ...files import from_project, read_jsonl, write_jsonl
from ...images.html import data_url
from ...run.run import Run
from ..captions import clean_caption
from ..examples import Example, ImageRef
from ..images import ImageError, fit, upright
from ..sources import open_source, source_options
from ..sources.folder import METADATA_STEM, ImageFolder
from ..store.database import Database
from .drafts import Drafts, content_digest, is_captionless, open_drafts

MAX_ROWS = 200  # a page of more is slow to scroll
SIDE = 128  # pixels of a picture


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


def read_captions(source: ImageFolder, drafts: Drafts) -> dict[str, tuple[ImageRef, str]]:
    """Return image and caption by file name: captions as they are, else their drafts, else ""."""
    rows = {}
    for item in source:
        if len(rows) == MAX_ROWS:
            break
        # a name that is not UTF-8 was changed for display, and names no file
        if not (source.folder / item.id).is_file():
            continue
        if isinstance(item, Example):
            rows[item.id] = (item.image, item.caption)
        elif is_captionless(item):
            digest = content_digest(item.image)
            rows[item.id] = (item.image, drafts.find([digest]).get(digest, ""))
    return rows


def save_captions(folder: Path, captions: Mapping[str, str]) -> Path:
    """Write captions into a folder's metadata.jsonl and return its path.

    Rows of other images stay, and so do other columns. An empty caption is left out.
    captions: by file name, relative to the folder
    """
    path = folder / f"{METADATA_STEM}.jsonl"
    cleaned = {name: clean_caption(text) for name, text in captions.items()}
    cleaned = {name: text for name, text in cleaned.items() if text}
    rows = []
    for row in read_jsonl(path):
        name = row.get("file_name")
        rows.append(row | {"text": cleaned.pop(name)} if name in cleaned else row)
    rows += [{"file_name": name, "text": text} for name, text in cleaned.items()]
    write_jsonl(path, rows)
    return path


def _widgets(folder: Path, rows: dict[str, tuple[ImageRef, str]]) -> Any:
    # only a notebook needs them
    from ipywidgets import HTML, Button, HBox, Layout, Textarea, VBox

    texts = {}
    lines = []
    for name, (image, caption) in rows.items():
        area = Textarea(caption, layout=Layout(width="32em", height="5em"))
        # what a screen reader announces
        area.tooltip = f"caption of {name}"
        texts[name] = area
        lines.append(HBox([HTML(_picture(name, image)), area]))
    button = Button(description="Save captions", button_style="primary")
    state = HTML(f"<p>{len(rows)} captions, not saved yet.</p>")

    def save(_):
        path = save_captions(folder, {name: area.value for name, area in texts.items()})
        again = setting("prepare", "replace", True)
        note = "Saved to {}. Run this notebook again with {}: edited captions are encoded then."
        state.value = Markup(f"<p>{note}</p>").format(from_project(path), again)

    button.on_click(save)
    return VBox([*lines, HBox([button, state])])


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
