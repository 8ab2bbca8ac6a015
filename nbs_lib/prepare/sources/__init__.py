"""Where examples come from. A source is read lazily: it is iterated once, and nothing of it is kept.

drawn        the picture-book, and scenes new to its base
folder       a folder of images with captions beside them, in their names or in a table
tables       a table by itself: images by path, or in it
prompts      a text file, one prompt a line, and no images
webdataset   tar archives
diffusiondb  the reference's data, from the hub or from a copy
hub          a data set of the hub or of the `datasets` library

Each is a class with `__iter__`, which yields Example and Skipped in a fixed order; `total()`, how many examples there are at
most, or None; and `stamp()`, which changes when anything does that it would yield, "" where nothing tells. What cannot be used
is never fatal and never silent: it is a Skipped with its reason.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ...config import DRAWN, Prepare
from ...files import ROOT
from ..enclosure import open_regular
from ..examples import Example, Skipped, SourceError

HUB, DIFFUSIONDB = "hf:", "diffusiondb:"
"""What the source of a data set on the hub begins with: hf:OWNER/NAME, diffusiondb:2m_first_10k."""


class Source(Protocol):
    """See the module's docstring."""

    def __iter__(self) -> Iterator[Example | Skipped]: ...

    def total(self) -> int | None: ...

    def stamp(self) -> str: ...


@dataclass(frozen=True)
class SourceOptions:
    """What a source is asked for, besides which it is; see the parameters of these names."""

    count: int = 0
    seed: int = 0
    subset: str = ""
    split: str = "train"
    streaming: bool = False
    image_column: str = ""
    caption_column: str = ""
    captions: str = "files"


def source_options(config: Prepare, count: int) -> SourceOptions:
    names = ("seed", "subset", "split", "streaming", "image_column", "caption_column", "captions")
    return SourceOptions(count, **{name: getattr(config, name) for name in names})


def open_source(source: str, how: SourceOptions) -> Source:
    """The source of that name; a relative path is taken from the project. Errors: SourceError."""
    from . import diffusiondb, folder, webdataset
    from . import huggingface as hub
    from . import picturebook as drawn

    if source in DRAWN:
        return drawn.PictureBookSource(source, how.count, how.seed)
    if source.startswith(DIFFUSIONDB):
        return diffusiondb.exists_on_hub(source.removeprefix(DIFFUSIONDB), how)
    if source.startswith(HUB):
        return hub.HubDataset(source.removeprefix(HUB), how)
    try:
        path = ROOT / Path(source).expanduser()
    except RuntimeError:  # of a user that is not known
        path = ROOT / source
    if "*" in path.name:
        return webdataset.WebDataset(sorted(path.parent.glob(path.name)), str(path), path.parent)
    if os.path.isfile(path):
        return _file(source, path, how)
    if not os.path.isdir(path):
        raise SourceError(
            f"source {str(path)!r}: there is no such folder or file; give {', '.join(DRAWN)}, a folder of images, a table, a "
            f"text file of prompts, tar archives, {HUB}OWNER/NAME or {DIFFUSIONDB}2m_first_10k"
        )
    if os.path.lexists(path / diffusiondb.METADATA) and any(path.glob("images/part-*.zip")):
        return diffusiondb.DiffusionDB(path, how)
    if hub.is_saved(path):
        return hub.HubDataset(str(path), how)
    images = folder.Folder(path, how)
    if (shards := sorted(path.glob("*.tar"))) and not images.has_images():
        return webdataset.WebDataset(shards, str(path), path)
    return images


def check_source_on_hub(source: str, patience: float):
    """Ask the hub for a data set, of which nothing is fetched. patience: seconds to wait.

    Errors: SourceError where the hub does not know it, or does not answer.
    """
    from huggingface_hub import HfApi

    from .diffusiondb import REPOSITORY

    name = REPOSITORY if source.startswith(DIFFUSIONDB) else source.removeprefix(HUB)
    try:
        HfApi().dataset_info(name, timeout=patience)
    except Exception as failure:  # the hub's, the network's, and those of an id that is none
        raise SourceError(
            f"source {source!r}: the hub has no data set {name!r} or does not answer ({type(failure).__name__}); check the id "
            "and the connection, or give a local copy"
        ) from None


def _file(source: str, path: Path, how: SourceOptions) -> Source:
    """The source that a single file is. Errors: SourceError."""
    from . import prompts, tables, webdataset

    kinds = {
        ".tar": lambda: webdataset.WebDataset([path], str(path)),
        ".txt": lambda: prompts.Prompts(path),
    }
    kinds |= {ending: lambda: tables.table(path, how) for ending in tables.ENDINGS}
    if path.suffix.lower() not in kinds:
        raise SourceError(
            f"source {source!r}: a file that ends in {', '.join(kinds)} can be read, or a folder"
        )
    try:
        open_regular(path).close()
    except OSError as failure:
        raise SourceError(
            f"source {str(path)!r}: the file cannot be read: {failure.strerror or failure}"
        ) from None
    return kinds[path.suffix.lower()]()
