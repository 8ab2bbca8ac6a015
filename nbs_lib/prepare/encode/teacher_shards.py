"""The shards of the teacher's predictions, one for each shard of examples."""

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow.parquet

from ...cache.format import ANSWERS, CAPTIONS, EXAMPLES, LATENTS, TEXTS, UNCONDITIONAL
from ...config import Prepare
from ...run.progress_bar import progress_bar
from ..hashes import hash128
from ..manifest import TableWriter
from .shard_files import ShardFiles
from .workers import WorkerPool

GROUPS = 16  # groups of rows that are held at once: captions repeat


class TableReader:
    """A finished table of a build, read in groups of rows, as `TableWriter` wrote them."""

    def __init__(self, path: Path):
        self.table = pyarrow.parquet.ParquetFile(path)
        self.n_rows = self.table.metadata.num_rows
        self._group = lru_cache(GROUPS)(self._read_group)

    def take(self, numbers: Iterable[int]) -> list[dict[str, Any]]:
        """Return rows by their numbers."""
        rows = []
        for number in numbers:
            group, row = divmod(number, TableWriter.ROWS)
            rows.append(self._group(group)[row])
        return rows

    def _read_group(self, group: int) -> list[dict[str, Any]]:
        return self.table.read_row_group(group).to_pylist()


def write_teacher_shards(
    config: Prepare,
    tables: Path,
    shards: list[dict[str, Any]],
    text_shards: list[dict[str, Any]],
    files: ShardFiles,
    pool: WorkerPool,
):
    """Write the predictions for all examples, and their shards' names into `shards`.

    tables: the folder with the finished tables.
    shards, text_shards: as cache.json lists them.
    """
    examples = TableReader(tables / EXAMPLES)
    captions = TableReader(tables / CAPTIONS)
    text_files = [files.path(TEXTS, shard["name"]) for shard in text_shards]
    setup = (files.paths[UNCONDITIONAL], config)
    start = 0
    with progress_bar(total=examples.n_rows, unit=" answers", mininterval=1, ascii=" #") as bar:
        for number, shard in enumerate(shards):
            n_rows = shard["rows"]
            rows = examples.take(range(start, start + n_rows))
            start += n_rows
            keys = [row["key"] for row in rows]
            texts = captions.take(row["caption"] for row in rows)
            words = [text["caption"] for text in texts]
            # The noise depends on the keys, and the predictions on latents and words.
            shard["answers"] = hash128([files.spaces[ANSWERS], keys, words, shard["shape"]])
            path = files.claim(ANSWERS, shard["answers"], number)
            if path is None:
                bar.update(n_rows)
                continue
            text_rows = [(text_files[text["shard"]], text["row"]) for text in texts]
            # Trajectories begin with noise alone.
            on_data = config.teacher_cache == "data"
            latents = files.path(LATENTS, shard["name"]) if on_data else None
            arguments = (*setup, path, keys, text_rows, latents, tuple(shard["shape"]))
            # The default value binds this shard's number of rows, not the last one's.
            pool.run(
                number,
                "write_predictions",
                *arguments,
                then=lambda n_rows=n_rows: bar.update(n_rows),
            )
        pool.finish()
