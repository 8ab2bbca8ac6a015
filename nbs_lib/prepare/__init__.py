"""Images and captions into a cache: the room behind `1_prepare.ipynb`.

prepare    the stage: source -> cache, and the run's link to it
sources    where examples come from, read lazily
examples   an example, and the place of its image
captions   captions as text
images     any image to RGB of a wanted size
filters    which examples are kept, and why others are not
gather     a source gone through once: what is kept is encoded while more is read
noted      what was kept and dropped, and some of it to look at
shelf      the shards of a cache that is being made, each found or written
processes  the processes that look at images and encode; work: what they do
answers    the teacher's answers, asked once and kept
seen       what images looked like, remembered between runs
naming     names that are hashes over what something depends on
receipts   what earlier passes over unchanged sources came to
known      what older caches hold already
build      a cache, found or built, by one process at a time
cache      the files of a cache, and how it is opened
store      all caches: listed, verified, pruned
look       sheets of pictures, histograms, tables
"""

import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet

from ..cache.format import AS_TRAINED, META, SHEET, Cache, open_cache
from ..config import Prepare
from ..files import from_project, link
from ..models import BaseError, find_base
from ..models.consistency import check_unguided
from ..models.stable_diffusion import StableDiffusion
from ..run.run import Run
from .build import BuildResult, build_or_reuse
from .manifest import DROPPED, KEPT
from .store.admin import in_use

__all__ = ["Cache", "PrepareResult", "open_cache", "prepare"]


@dataclass(frozen=True)
class PrepareResult:
    """A finished stage: the run, its cache and how it came by it, and the seconds that it took."""

    run: Run
    built: BuildResult
    seconds: float

    @property
    def cache(self) -> Cache:
        return self.built.cache

    @property
    def dropped(self) -> dict[str, int]:
        """How many examples for each reason."""
        return self.built.dropped

    @property
    def contact_sheet(self) -> Path:
        return self.cache.folder / SHEET

    @property
    def pictures(self) -> list[Path]:
        """What there is to look at, as far as it is there."""
        own = [
            self.run.folder / "prepare" / f"{name}.png"
            for name in ("sizes", "captions", "dropped", "alike")
        ]
        return [
            path
            for path in (self.contact_sheet, self.cache.folder / AS_TRAINED, *own)
            if path.exists()
        ]

    def some_dropped(self, most: int = 30) -> list[dict[str, str]]:
        """The first ones of what was dropped: id, reason, detail."""
        with pyarrow.parquet.ParquetFile(self.run.folder / "prepare" / DROPPED) as table:
            batches = table.iter_batches(most)
            return next((batch.to_pylist() for batch in batches), [])

    def __str__(self) -> str:
        meta, dropped = self.cache.meta, sum(self.dropped.values())
        how = (
            "reused, nothing was encoded"
            if self.built.reused
            else f"built, {self.built.encoded} images encoded"
        )
        beyond = (
            "; count was reached, the rest of the source was not read" if self.built.more else ""
        )
        cut = (
            f"; {meta['captions_cut']} captions are longer than the text encoder reads"
            if meta["captions_cut"]
            else ""
        )
        rate = f"{meta['examples'] / max(self.seconds, 1e-9):.0f} examples a second"
        return (
            f"{meta['examples']} examples, {dropped} dropped{beyond}{cut}. Cache {meta['key'][:12]} {how}, in "
            f"{self.seconds:.1f} s, {rate}: latents {' and '.join(meta['shapes'])}, text {meta['text_shape']}, "
            f"base {meta['base']}. Next: 2_train.ipynb with run = {from_project(self.run.folder)!r}"
        )


def prepare(config: Prepare) -> PrepareResult:
    """Do the stage: find the base, choose the examples, build or reuse their cache, link the run to it.

    Errors: BaseError, SourceError, WorkerError, FullError; nothing is linked then, and the run's record says so.
    """
    run, start = Run(config.run), time.perf_counter()
    with run.stage(config) as told:
        base = find_base(config.base, config.revision)
        check_unguided(base)
        check_resolution(base, config.resolution)
        own = run.folder / "prepare"
        with in_use(run.cache_store):
            built = build_or_reuse(run.cache_store, base, config, own)
            link(run.cache, built.cache.folder)
        told["outputs"] = [f"{run.cache.name}/{META}"]
        told |= {
            name: built.cache.meta[name] for name in ("base", "revision", "base_hash", "examples")
        }
        told |= {
            "base_origin": base.origin,
            "cache": built.cache.meta["key"],
            "reused": built.reused,
            "encoded": built.encoded,
            "looked_at": built.looked_at,
            "dropped": built.dropped,
            "tables": [f"{own.name}/{name}" for name in (KEPT, DROPPED)],
            "cache_seconds": round(time.perf_counter() - start, 1),
        }
    return PrepareResult(run, built, time.perf_counter() - start)


def check_resolution(base: StableDiffusion, resolution: int):
    """Errors: BaseError where the base's VAE cannot halve a picture of `resolution` pixels as often as it has to."""
    factor = base.vae_scale_factor
    if resolution % factor:
        raise BaseError(
            f"parameter resolution: given {resolution}; the VAE of base {base.name!r} makes pictures {factor} times smaller, "
            f"so allowed is a multiple of {factor}, for example {max(1, round(resolution / factor)) * factor}"
        )
