"""Images and captions to a cache of latents and embeddings: the package behind `1_prepare.ipynb`.

build            a cache, found or built
build_result     a cache, and how it was obtained
assembly         the last step of a build
sources          where examples come from, read lazily
examples         an example, and references to its image
captions         captions as text
captioning       captions for images without one, drafted by a model and edited
images           any image to RGB of a given size
image_structure  files of too many parts, found before they are decoded
enclosure        the files that a source may read
filters          which examples are kept, and why others are dropped
manifest         tables and counts of what was kept and dropped
encode           images and captions to shards, by worker processes
hosts            one cache, built by several hosts
store            what is remembered between runs, and the administration of caches
preview          pictures and tables for the notebook
sheets, charts   sheets of pictures, and histograms
hashes           short hashes, and tables by hashes
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet

from ..cache.format import AS_TRAINED, META, SHEET, Cache, open_cache
from ..config import Prepare
from ..files import from_project, link, write_atomic
from ..models import BaseError, find_base
from ..models.consistency import check_unguided
from ..models.stable_diffusion import StableDiffusion
from ..run.run import Run
from .build import BuildResult, build_or_reuse, encode_share
from .manifest import DROPPED, KEPT
from .preview import PICTURES, poor_reconstruction
from .store.locks import in_use
from .store.receipts import request_hash

__all__ = ["Cache", "PrepareResult", "open_cache", "prepare"]


@dataclass(frozen=True)
class PrepareResult:
    """A finished stage: the run, its cache and how it was obtained, and the seconds it took."""

    run: Run
    built: BuildResult
    seconds: float

    @property
    def cache(self) -> Cache:
        return self.built.cache

    @property
    def dropped(self) -> dict[str, int]:
        """The number of dropped items for each reason."""
        return self.built.dropped

    @property
    def contact_sheet(self) -> Path:
        return self.cache.folder / SHEET

    @property
    def pictures(self) -> list[Path]:
        """The pictures of the cache and the run that exist."""
        # A picture is missing if there was nothing to show.
        run_pictures = [self.run.folder / "prepare" / name for name in PICTURES]
        paths = [self.contact_sheet, self.cache.folder / AS_TRAINED, *run_pictures]
        return [path for path in paths if path.exists()]

    def some_dropped(self, limit: int = 30) -> list[dict[str, str]]:
        """Return the first dropped items: id, reason, detail."""
        # A batch is read, not the table, which may have millions of rows.
        with pyarrow.parquet.ParquetFile(self.run.folder / "prepare" / DROPPED) as table:
            first = next(table.iter_batches(limit), None)
            return [] if first is None else first.to_pylist()

    def __str__(self) -> str:
        metadata = self.cache.meta
        built = self.built
        n_examples = metadata["examples"]
        n_dropped = sum(self.dropped.values())
        origin = f"built, {built.encoded} images encoded"
        if built.reused:
            origin = "reused, nothing was encoded"
        limits = ""
        if built.more:
            limits = "; count was reached, the rest of the source was not read"
        if metadata["captions_cut"]:
            cut = metadata["captions_cut"]
            limits += f"; {cut} captions are longer than the text encoder reads"
        warning = poor_reconstruction(self.cache)
        rate = n_examples / max(self.seconds, 1e-9)  # a test may take no measurable time
        return (
            f"{n_examples} examples, {n_dropped} dropped{limits}. "
            f"Cache {metadata['key'][:12]} {origin}, in {self.seconds:.1f} s, "
            f"{rate:.0f} examples a second: latents {' and '.join(metadata['shapes'])}, "
            f"text {metadata['text_shape']}, base {metadata['base']}. "
            f"{warning}{' ' if warning else ''}"
            f"Next: 2_train.ipynb with run = {from_project(self.run.folder)!r}"
        )


def prepare(config: Prepare) -> PrepareResult:
    """Choose the examples, build or reuse their cache, and link the run to it.

    A further host encodes its share, and waits for host 0, which does the rest.

    Errors: BaseError, SourceError, WorkerError, FullError; of several hosts LaunchError, with the
    reason. Nothing is linked then, and the run's record has the error.
    """
    run = Run(config.run)
    start = time.perf_counter()
    if config.node_rank:
        built = _build_with_host_0(config, run)
        return PrepareResult(run, built, time.perf_counter() - start)
    with run.stage(config) as record:
        # A base that cannot be trained is refused before anything is read.
        base = find_base(config.base, config.revision)
        check_unguided(base)
        check_resolution(base, config.resolution)
        # Until the run has its link, no run uses the cache, and it could be pruned.
        with in_use(run.cache_store):
            built = _build(config, run, base)
            link(run.cache, built.cache.folder)
        record |= _stage_record(run, base, built)
        record["cache_seconds"] = round(time.perf_counter() - start, 1)
    return PrepareResult(run, built, time.perf_counter() - start)


def _build(config: Prepare, run: Run, base: StableDiffusion) -> BuildResult:
    if config.num_nodes == 1:
        return build_or_reuse(run.cache_store, base, config, run.folder / "prepare")
    # not at the top: it imports accelerate and torch's launch, which one host does not need
    from ..launch.launcher import launch

    return BuildResult.from_record(run.cache_store, launch(_prepare_in_process, config, run, {}))


def _build_with_host_0(config: Prepare, run: Run) -> BuildResult:
    """Encode a further host's share, and wait for host 0, which keeps the record."""
    from ..launch.launcher import launch
    from ..launch.waiting import await_end, await_start

    with run.exclusive(f".host-{config.node_rank}.lock"):
        await_start(run, "prepare")
        launch(_prepare_in_process, config, run, {})
    return BuildResult.from_record(run.cache_store, await_end(run, "prepare"))


def _prepare_in_process(config: Prepare, run: Run, inputs: dict[str, str]):
    """Do this host's part of the preparation; `launch` calls it in a process of each host."""
    from ..launch.launcher import RESULT_FILE
    from .hosts.meeting import check_same_request, meet

    with meet(config, run) as hosts:
        base = find_base(config.base, config.revision)
        check_same_request(request_hash(config, base), hosts)
        if hosts.rank:
            encode_share(run.cache_store, base, config, hosts)
            return
        built = build_or_reuse(run.cache_store, base, config, run.folder / "prepare", hosts)
        write_atomic(run.folder / RESULT_FILE, json.dumps(built.as_record()))


def _stage_record(run: Run, base: StableDiffusion, built: BuildResult) -> dict[str, Any]:
    metadata = built.cache.meta
    # These names are in the records of older runs, too.
    return {
        "outputs": [f"{run.cache.name}/{META}"],
        "base": metadata["base"],
        "revision": metadata["revision"],
        "base_hash": metadata["base_hash"],
        "examples": metadata["examples"],
        "base_origin": base.origin,
        **built.as_record(),
        "tables": [f"prepare/{name}" for name in (KEPT, DROPPED)],
    }


def check_resolution(base: StableDiffusion, resolution: int):
    """Check that the VAE can reduce pictures of this size. Errors: BaseError."""
    factor = base.vae_scale_factor
    # Otherwise latents would be rounded down, and pictures come back smaller.
    if resolution % factor:
        example = max(1, round(resolution / factor)) * factor
        raise BaseError(
            f"parameter resolution: given {resolution}; the VAE of base {base.name!r} makes "
            f"pictures {factor} times smaller, so allowed is a multiple of {factor}, "
            f"for example {example}"
        )
