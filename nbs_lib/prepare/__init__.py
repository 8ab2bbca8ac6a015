"""The room behind `1_prepare.ipynb`: images and captions in, a cache of latents and text embeddings out.

sources   where examples come from
captions  the captions of a folder of images
images    any image to an RGB square
encode    pictures to latents, captions to embeddings
cache     the files, and when they may be used again
look      the contact sheet and the tables
"""

import os
from dataclasses import dataclass
from pathlib import Path

from ..config import Prepare
from ..models import find_base
from ..run import Run
from .cache import Cache, build_or_reuse
from .encode import check_resolution
from .sources import select


@dataclass(frozen=True)
class Prepared:
    """A prepared run: its cache, and whether that was there already."""

    cache: Cache
    reused: bool

    @property
    def contact_sheet(self) -> Path:
        return self.cache.folder / "contact_sheet.png"


def prepare(config: Prepare) -> Prepared:
    """Encode the source's images and captions with the base, or find that done; the run's `cache` points to it.

    Errors: SourceError, BaseError, each with what was given and what to do; nothing is left behind then.
    """
    run = Run(config.run)
    base = find_base(config.base)
    check_resolution(base, config.resolution)
    selection = select(config)
    with run.stage(config) as told:
        cache, reused = build_or_reuse(run.cache_store, selection, base, config.resolution, config.batch_size)
        _point(run.cache, cache.folder)
        told |= {"cache": cache.meta["key"], "reused": reused, "examples": len(cache.captions), "skipped": len(cache.skipped)}
        told["outputs"] = ["cache/cache.json"]
    return Prepared(cache, reused)


def _point(link: Path, folder: Path):
    """Replace the link atomically."""
    beside = link.with_name(f".{link.name}.{os.getpid()}.part")
    beside.unlink(missing_ok=True)
    beside.symlink_to(os.path.relpath(folder, link.parent), target_is_directory=True)
    beside.replace(link)
