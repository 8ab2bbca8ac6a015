"""The shards of the teacher's predictions, one for each shard of examples."""

from pathlib import Path
from typing import Any

import pyarrow.parquet

from ...cache.format import ANSWERS, CAPTIONS, EXAMPLES, LATENTS, TEXTS, UNCONDITIONAL
from ...config import Prepare
from ...run.progress_bar import progress_bar
from ..hashes import hash128
from .shard_files import ShardFiles
from .workers import WorkerPool


def write_teacher_shards(
    config: Prepare,
    part: Path,
    shards: list[dict[str, Any]],
    text_shards: list[dict[str, Any]],
    files: ShardFiles,
    pool: WorkerPool,
):
    """Write the predictions for all examples, and their shards' names into `shards`.

    part: the folder with the finished tables.
    shards, text_shards: as cache.json lists them.
    """
    examples = pyarrow.parquet.read_table(part / EXAMPLES)
    captions = pyarrow.parquet.read_table(part / CAPTIONS)
    text_files = [files.path(TEXTS, shard["name"]) for shard in text_shards]
    setup = (files.paths[UNCONDITIONAL], config)
    start = 0
    with progress_bar(total=len(examples), unit=" answers", mininterval=1, ascii=" #") as bar:
        for number, shard in enumerate(shards):
            n_rows = shard["rows"]
            rows = examples.slice(start, n_rows)
            start += n_rows
            keys = rows["key"].to_pylist()
            texts = captions.take(rows["caption"])
            words = texts["caption"].to_pylist()
            # The noise depends on the keys, and the predictions on latents and words.
            shard["answers"] = hash128([files.spaces[ANSWERS], keys, words, shard["shape"]])
            path = files.claim(ANSWERS, shard["answers"])
            if path is None:
                bar.update(n_rows)
                continue
            text_numbers = texts["shard"].to_pylist()
            text_paths = [text_files[text_number] for text_number in text_numbers]
            text_rows = list(zip(text_paths, texts["row"].to_pylist(), strict=True))
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
