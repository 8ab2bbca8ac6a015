"""Images and captions into a cache: the room behind `1_prepare.ipynb`.

prepare    the stage: source -> cache, and the run's link to it
sources    examples of the picture-book or of a folder; what is skipped, and why
captions   the captions of a folder
images     any image to an RGB square
encode     pictures to latents, captions to embeddings
answers    the teacher's answers, asked once and kept
cache      the files of a cache, its key, how it is opened, reused and rebuilt
look       the contact sheet and the tables
"""

import time
from dataclasses import dataclass
from pathlib import Path

from ..config import Prepare
from ..files import link
from ..models import find_base
from ..run import Run
from .cache import META, SHEET, Cache, build_or_reuse, open_cache
from .encode import check_resolution
from .sources import select

__all__ = ["Cache", "Prepared", "open_cache", "prepare"]


@dataclass(frozen=True)
class Prepared:
    """A finished stage: the run, its cache, and how it came by it."""

    run: Run
    cache: Cache
    reused: bool
    """Whether the cache was there already, so nothing was encoded."""
    unused: int
    """Captioned images beyond `count`, which were not looked at."""

    @property
    def contact_sheet(self) -> Path:
        return self.cache.folder / SHEET

    def __str__(self) -> str:
        meta = self.cache.meta
        how = "reused, nothing was encoded" if self.reused else "built"
        beyond = f", {self.unused} beyond count left out" if self.unused else ""
        cut = f"; {meta['captions_cut']} captions are longer than the text encoder reads" if meta["captions_cut"] else ""
        return (
            f"{meta['examples']} examples, {meta['skipped']} skipped{beyond}{cut}. Cache {meta['key'][:12]} {how}: latents "
            f"{meta['latent_shape']}, text {meta['text_shape']}, base {meta['base']}. "
            f"Next: 2_train.ipynb with run = {str(self.run.folder)!r}"
        )


def prepare(config: Prepare) -> Prepared:
    """Do the stage: find the base, choose the examples, build or reuse their cache, link the run to it.

    Errors: BaseError, SourceError; nothing is written then but the run's record, which says so.
    """
    run, start = Run(config.run), time.perf_counter()
    with run.stage(config) as told:
        base = find_base(config.base)
        check_resolution(base, config.resolution)
        selection = select(config)
        cache, reused = build_or_reuse(run.cache_store, selection, base, config)
        link(run.cache, cache.folder)
        told["outputs"] = [f"{run.cache.name}/{META}"]
        told |= {name: cache.meta[name] for name in ("base", "base_hash", "examples", "skipped")}
        told |= {
            "base_origin": base.origin,
            "cache": cache.meta["key"],
            "reused": reused,
            "unused": selection.unused,
            "cache_seconds": round(time.perf_counter() - start, 1),
        }
    return Prepared(run, cache, reused, selection.unused)
