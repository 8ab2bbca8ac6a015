"""The sources of examples, each opened by its name.

base          the interface of a source
picturebook   the picture-book, and scenes new to its base, drawn by code
folder        a folder of images with captions beside them, in their names or in a table
table         a table by itself: images by path, or in it
table_rows    the rows of such tables
prompts       a text file, one prompt a line, and no images
webdataset    tar archives
diffusiondb   the reference's data, from the hub or from a copy; diffusiondb_part: one part
huggingface   a data set of the hub or of the `datasets` library; huggingface_folder: its checks
readers       readers of file formats
"""

import os
from pathlib import Path

from ...config import DRAWN, Prepare
from ...files import ROOT
from ..enclosure import open_regular
from ..examples import SourceError
from .base import Source, SourceOptions
from .diffusiondb import METADATA, REPOSITORY, DiffusionDB, open_on_hub
from .folder import ImageFolder
from .huggingface import HubDataset, is_saved
from .picturebook import PictureBookSource
from .prompts import Prompts
from .table import open_table
from .table_rows import TABLE_ENDINGS
from .webdataset import WebDataset

# Prefixes of data sets on the hub: hf:OWNER/NAME, diffusiondb:2m_first_10k.
HUB, DIFFUSIONDB = "hf:", "diffusiondb:"
FILE_ENDINGS = (".tar", ".txt", *TABLE_ENDINGS)


def source_options(config: Prepare, count: int) -> SourceOptions:
    return SourceOptions(
        count=count,
        seed=config.seed,
        subset=config.subset,
        split=config.split,
        streaming=config.streaming,
        image_column=config.image_column,
        caption_column=config.caption_column,
        captions=config.captions,
    )


def open_source(source: str, options: SourceOptions) -> Source:
    """Return the source of a name; a relative path begins at the project. Errors: SourceError."""
    if source in DRAWN:
        return PictureBookSource(source, options.count, options.seed)
    if source.startswith(DIFFUSIONDB):
        return open_on_hub(source.removeprefix(DIFFUSIONDB), options)
    if source.startswith(HUB):
        return HubDataset(source.removeprefix(HUB), options)
    try:
        path = ROOT / Path(source).expanduser()
    except RuntimeError:  # "~name" of an unknown user
        path = ROOT / source
    # Sorted, because the order of a glob is the disk's and differs between machines.
    if "*" in path.name:
        archives = sorted(path.parent.glob(path.name))
        return WebDataset(archives, str(path), path.parent)
    # A pipe is neither file nor folder here, and so it is refused like a missing path.
    if os.path.isfile(path):
        return _open_file(source, path, options)
    if os.path.isdir(path):
        return _open_folder(path, options)
    raise SourceError(
        f"source {str(path)!r}: there is no such folder or file; give {', '.join(DRAWN)}, "
        "a folder of images, a table, a text file of prompts, tar archives, "
        f"{HUB}OWNER/NAME or {DIFFUSIONDB}2m_first_10k"
    )


def _open_folder(path: Path, options: SourceOptions) -> Source:
    if os.path.lexists(path / METADATA) and any(path.glob("images/part-*.zip")):
        return DiffusionDB(path, options)
    if is_saved(path):
        return HubDataset(str(path), options)
    images = ImageFolder(path, options)
    shards = sorted(path.glob("*.tar"))
    # An archive beside images is a backup or the like.
    if shards and not images.total():
        return WebDataset(shards, str(path), path)
    return images


def _open_file(source: str, path: Path, options: SourceOptions) -> Source:
    ending = path.suffix.lower()
    if ending not in FILE_ENDINGS:
        raise SourceError(
            f"source {source!r}: a file that ends in {', '.join(FILE_ENDINGS)} can be read, "
            "or a folder"
        )
    # Unreadable files are refused at once, not after hours in the middle of a run.
    try:
        open_regular(path).close()
    except OSError as failure:
        raise SourceError(
            f"source {str(path)!r}: the file cannot be read: {failure.strerror or failure}"
        ) from None
    if ending == ".tar":
        return WebDataset([path], str(path))
    if ending == ".txt":
        return Prompts(path)
    return open_table(path, options)


def check_source_on_hub(source: str, patience: float):
    """Check that the hub has a data set, of which nothing is fetched.

    patience: seconds to wait.
    Errors: SourceError if the hub does not know it, or does not answer.
    """
    # Imported here: a run on local files needs neither the library nor the seconds it takes.
    from huggingface_hub import HfApi

    name = REPOSITORY if source.startswith(DIFFUSIONDB) else source.removeprefix(HUB)
    try:
        HfApi().dataset_info(name, timeout=patience)
    except Exception as failure:  # errors of the hub, of the network, and of an invalid id
        raise SourceError(
            f"source {source!r}: the hub has no data set {name!r} or does not answer "
            f"({type(failure).__name__}); check the id and the connection, or give a local copy"
        ) from None
