"""The distinct captions of a cache: a table, and shards of their embeddings."""

from collections import Counter
from pathlib import Path
from typing import Any

from ...cache.format import CAPTION_COLUMNS, CAPTIONS, TEXTS
from ..hashes import hash64, hash128
from ..hashes.table import HashTable
from ..manifest import TableWriter
from .shard_files import ShardFiles
from .workers import WorkerPool

TEXT_ROWS = 256  # captions of a shard


class CaptionWriter:
    """Captions in the order of their first use.

    shards: as cache.json lists them.
    tokens: captions by their number of tokens.
    n_cut: captions that are longer than the text encoder reads.
    """

    def __init__(self, tokenizer: Any, tables: Path, files: ShardFiles, pool: WorkerPool):
        self.tokenizer = tokenizer
        self.files = files
        self.pool = pool
        self.shards: list[dict[str, Any]] = []
        self.tokens: Counter[int] = Counter()
        self.n_cut = 0
        self.table = TableWriter(tables / CAPTIONS, CAPTION_COLUMNS)
        self._numbers = HashTable()
        self._n_captions = 0
        self._waiting: list[str] = []

    def add(self, caption: str) -> int:
        """Return the number of a caption, and queue a new one for encoding."""
        # Hashes of 64 bits instead of texts: a source may have millions of captions.
        key = hash64(caption.encode())
        number = next(self._numbers.find(key), None)
        if number is None:
            number = self._n_captions
            self._n_captions += 1
            self._numbers.add(key, number)
            self._waiting.append(caption)
            if len(self._waiting) == TEXT_ROWS:
                self.flush()
        return number

    def flush(self):
        """Encode the captions that wait for a full shard."""
        captions = self._waiting
        if not captions:
            return
        self._waiting = []
        # The captions are part of the name, so equal captions in equal order are one shard.
        name = hash128([self.files.spaces[TEXTS], captions])
        number = len(self.shards)
        self.shards.append({"name": name, "rows": len(captions)})
        # Without `verbose=False` the tokenizer warns of each long caption.
        token_ids = self.tokenizer(captions, verbose=False).input_ids
        lengths = list(map(len, token_ids))
        for row, (caption, length) in enumerate(zip(captions, lengths, strict=True)):
            self.table.add(caption, length, number, row)
        self.tokens.update(lengths)
        limit = self.tokenizer.model_max_length
        self.n_cut += sum(length > limit for length in lengths)
        path = self.files.claim(TEXTS, name, number)
        if path:
            reused = self.files.reusable_rows(TEXTS, captions)
            self.pool.run(number, "write_texts", path, captions, reused)
