"""The examples of a cache: a table, and shards of latents that the workers write."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...cache.format import EXAMPLE_COLUMNS, EXAMPLES, LATENTS, UNCONDITIONAL
from ...cache.shards import map_shard
from ...config import Prepare
from ...models import StableDiffusion
from ..examples import Example
from ..filters import ImageInfo
from ..hashes import hash128
from ..images import Size
from ..manifest import TableWriter
from .caption_writer import CaptionWriter
from .encoder import Cropping, LatentsTask
from .keys import key_spaces, row_key
from .shard_files import ShardFiles
from .teacher_shards import write_teacher_shards
from .workers import WorkerPool


@dataclass(frozen=True)
class KeptExample:
    """An example that passed all filters. position: in its chunk."""

    position: int
    example: Example
    info: ImageInfo


MirroredRows = list[tuple[KeptExample, bool]]  # each example with whether its picture is mirrored


class ShardWriter:
    """Turns kept examples into shards, encoding only what no cache holds.

    shards: as cache.json lists them.
    files: where each file of the cache is now.
    encoded: rows of latents that were encoded.
    """

    def __init__(
        self,
        config: Prepare,
        base: StableDiffusion,
        cropping: Cropping,
        store: Path,
        part: Path,
        tables: Path,
        pool: WorkerPool,
    ):
        """Begin a cache in the folder `part`, which may hold shards of an earlier try.

        tables: folder of both tables.
        """
        self.config = config
        self.base = base
        self.cropping = cropping
        self.tables = tables
        self.pool = pool
        self.spaces = key_spaces(base, config)
        self.files = ShardFiles(store, part, self.spaces, pool.hosts)
        self.captions = CaptionWriter(base.tokenizer(), tables, self.files, pool)
        self.shards: list[dict[str, Any]] = []
        self.encoded = 0
        self._table = TableWriter(tables / EXAMPLES, EXAMPLE_COLUMNS)

    def add_chunk(
        self,
        number: int,
        examples: Sequence[KeptExample],
        decoded: Collection[int],
    ):
        """Add the kept examples of a chunk.

        decoded: positions of images whose pictures the chunk's worker holds.
        """
        tasks = []
        known_images = {}
        for size, rows in self._by_size(examples):
            task = self._add_shard(number, size, rows)
            if task is None:
                continue
            tasks.append(task)
            for i, (kept_example, _) in enumerate(rows):
                position = kept_example.position
                if i not in task.reused and position not in decoded:
                    image = kept_example.example.image
                    known_images[position] = (image, kept_example.info.digest)
            self.encoded += len(task.rows) - len(task.reused)
        # The job is needed without tasks, too: it releases the chunk's pictures.
        if tasks or (decoded and self.pool.hosts.owns(number)):
            self.pool.run(number, "write_latents", number, tasks, known_images, self.cropping)

    def finish(self):
        """Encode the rest and wait for all workers of all hosts."""
        self.captions.flush()
        path = self.files.claim_unconditional()
        if path:
            self.pool.run(0, "write_unconditional", path, self.config.negative_prompt)
        # Teacher predictions need the shards and both tables.
        self.pool.finish()
        self.pool.ask_all("release_text_models")
        self.files.exchange()
        self._table.close()
        self.captions.table.close()
        if self.config.teacher_cache != "none":
            write_teacher_shards(
                self.config, self.tables, self.shards, self.captions.shards, self.files, self.pool
            )
            self.files.exchange()
        self.encoded = sum(self.pool.hosts.gather(self.encoded))

    def discard(self):
        """Remove the unfinished tables. Shards stay for the next try."""
        self._table.discard()
        self.captions.table.discard()

    def text_shape(self) -> list[int]:
        """Return [tokens, width] of a caption's embedding."""
        unconditional = map_shard(self.files.paths[UNCONDITIONAL])
        return list(unconditional["empty"].shape)

    def _by_size(
        self,
        examples: Sequence[KeptExample],
    ) -> list[tuple[Size | None, MirroredRows]]:
        """Return the examples of each size, mirrored copies beside them; prompts have no size."""
        groups = {}
        for kept_example in examples:
            size = None
            if kept_example.example.image is not None:
                size = self.cropping.size_for(kept_example.info)
            # One shard has one shape; a copy follows its original, so that they stay together.
            rows = groups.setdefault(size, [])
            rows.append((kept_example, False))
            if self.config.flip and size:
                rows.append((kept_example, True))
        # Sorted, because the order of shards is part of a cache's key.
        return sorted(groups.items(), key=lambda group: group[0] or (0, 0))

    def _add_shard(self, chunk: int, size: Size | None, rows: MirroredRows) -> LatentsTask | None:
        """List a shard and its examples. Returns the task of writing it, None if there is none."""
        # A prompt has the shape of a square, which the teacher's trajectories begin with.
        square = (self.config.resolution, self.config.resolution)
        width, height = size or square
        keys = [
            row_key(kept_example.example, kept_example.info, (width, height), mirrored)
            for kept_example, mirrored in rows
        ]
        name = hash128([self.spaces[LATENTS], keys])
        number = len(self.shards)
        factor = self.base.vae_scale_factor
        shape = [self.base.latent_channels, height // factor, width // factor]
        # Its predictions get their name when all captions are known.
        self.shards.append({"name": name, "rows": len(rows), "shape": shape, "answers": None})
        for row, key in enumerate(keys):
            kept_example, mirrored = rows[row]
            example = kept_example.example
            caption = self.captions.add(example.caption)
            # In the order of EXAMPLE_COLUMNS.
            self._table.add(example.id, caption, key, number, row, example.prior, mirrored)
        path = self.files.claim(LATENTS, name, chunk) if size else None
        if path is None:
            return None
        positions = [(kept_example.position, mirrored) for kept_example, mirrored in rows]
        return LatentsTask(path, positions, self.files.reusable_rows(LATENTS, keys))
