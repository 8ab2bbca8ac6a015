"""What is noted while a source goes by: what was kept and dropped, and some of it to look at."""

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from ..files import fsync, remove_stale_temporaries, temporary_path
from .examples import Example, InMemory, Skipped
from .filters import ImageInfo, NearDuplicateFilter

KEPT, DROPPED = "kept.parquet", "dropped.parquet"
"""Tables of a run, in its folder `prepare/`: of the examples that are used, and of those that are not, with the reason."""
KEPT_COLUMNS = pyarrow.schema(
    [
        ("id", "string"),
        ("caption", "string"),
        ("width", "int32"),
        ("height", "int32"),
        ("image", "string"),
        ("prior", "bool"),
    ]
)
DROPPED_COLUMNS = pyarrow.schema([("id", "string"), ("reason", "string"), ("detail", "string")])
ALIKE = 4  # bits of 64 that perceptual hashes of look-alikes differ in at most
PAIRS, AMONG = (
    6,
    5000,
)  # look-alikes that are shown, and the examples that they are looked for among
OF_A_REASON = 4  # examples that are shown of those that were dropped for it


class Table:
    """A parquet file written in groups of rows, so that it needs no memory; there when it is closed."""

    ROWS = 4096

    def __init__(self, path: Path, columns: pyarrow.Schema):
        self.path, self.columns, self.rows = path, columns, []
        self.part = temporary_path(path)
        self.part.parent.mkdir(parents=True, exist_ok=True)
        remove_stale_temporaries(self.part.parent)
        self.writer = pyarrow.parquet.ParquetWriter(self.part, columns)

    def add(self, *row: Any):
        self.rows.append(row)
        if len(self.rows) == self.ROWS:
            self._flush()

    def close(self):
        self._flush()
        self.writer.close()
        fsync(self.part)
        self.part.replace(self.path)

    def drop(self):
        """Leave nothing of it."""
        self.rows = []
        with suppress(OSError):  # of a full disk
            self.writer.close()
        self.part.unlink(missing_ok=True)

    def _flush(self):
        columns = zip(*self.rows, strict=True) if self.rows else [[]] * len(self.columns)
        arrays = [
            pyarrow.array(list(column), type_)
            for column, type_ in zip(columns, self.columns.types, strict=True)
        ]
        self.writer.write_table(pyarrow.Table.from_arrays(arrays, schema=self.columns))
        self.rows = []


@dataclass
class EvenlySpacedSample:
    """Some of a stream of unknown length, evenly spread: every 2^k-th one, at most `most` of them."""

    most: int
    items: list = field(default_factory=list)
    every: int = 1
    passed: int = 0

    def offer(self, item: Any):
        if self.passed % self.every == 0:
            self.items.append(item)
            if len(self.items) > self.most:
                self.items, self.every = self.items[::2], 2 * self.every
        self.passed += 1


class Manifest:
    """kept: how many; dropped: how many for each reason; the rest is some of both, to look at.

    tables: a folder for kept.parquet and dropped.parquet.
    """

    def __init__(self, tables: Path):
        self.kept, self.dropped = 0, Counter()
        self.examples = EvenlySpacedSample(40)
        self.dropped_ones: dict[str, list[Skipped]] = {}
        self.alike: list[tuple[Example, Example]] = []
        self.sizes, self.tokens = Counter(), Counter()
        self._near = NearDuplicateFilter(ALIKE, label=lambda example: example)
        self._kept, self._dropped = (
            Table(tables / KEPT, KEPT_COLUMNS),
            Table(tables / DROPPED, DROPPED_COLUMNS),
        )

    def keep(self, example: Example, look: ImageInfo):
        self.kept += 1
        self._kept.add(
            example.id, example.caption, look.width, look.height, look.digest.hex(), example.prior
        )
        self.examples.offer((example, look))
        if example.image is None:
            return
        self.sizes[look.width, look.height] += 1
        if len(self.alike) < PAIRS and look.phash is not None:
            if found := self._near.find(look.phash):
                self.alike.append((found[0], example))
            elif self.kept < AMONG and not isinstance(
                example.image, InMemory
            ):  # which would stay in memory
                self._near.keep(example, look)

    def drop(self, each: Skipped):
        self.dropped[each.reason] += 1
        self._dropped.add(each.id, each.reason, each.detail)
        shown = self.dropped_ones.setdefault(each.reason, [])
        if len(shown) < OF_A_REASON:
            shown.append(each)

    def close(self):
        self._kept.close()
        self._dropped.close()

    def forget(self):
        """Leave no table."""
        self._kept.drop()
        self._dropped.drop()
