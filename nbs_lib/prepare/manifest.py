"""The record of a preparation's kept and dropped items: two tables, counts and samples."""

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

# Tables of a run, in its folder `prepare/`: the examples that are used, and the other items with
# their reasons.
KEPT, DROPPED = "kept.parquet", "dropped.parquet"
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
ALIKE = 4  # bits of 64 in which perceptual hashes of look-alikes differ at most
PAIRS = 6  # look-alikes that are shown
AMONG = 5000  # examples among which look-alikes are searched
PER_REASON = 4  # dropped items that are shown for each reason
SHOWN_EXAMPLES = 40
SHOWN_PRIOR = 8


class TableWriter:
    """A parquet file written in groups of rows, so that it needs no memory.

    The file appears under its name when it is closed.
    """

    ROWS = 4096

    def __init__(self, path: Path, columns: pyarrow.Schema):
        self.path = path
        self.columns = columns
        self.rows: list[tuple] = []
        self.part = temporary_path(path)
        self.part.parent.mkdir(parents=True, exist_ok=True)
        # An earlier run that was killed left its unfinished tables here.
        remove_stale_temporaries(self.part.parent)
        self.writer = pyarrow.parquet.ParquetWriter(self.part, columns)

    def add(self, *row: Any):
        self.rows.append(row)
        if len(self.rows) == self.ROWS:
            self._flush()

    def close(self):
        self._flush()
        self.writer.close()
        # After a power loss a renamed file may otherwise be empty.
        fsync(self.part)
        self.part.replace(self.path)

    def discard(self):
        """Remove the unfinished file."""
        self.rows = []
        with suppress(OSError):  # closing writes a footer, which a full disk refuses
            self.writer.close()
        self.part.unlink(missing_ok=True)

    def _flush(self):
        # `zip` of no rows would give no columns.
        columns = list(zip(*self.rows, strict=True)) or [()] * len(self.columns)
        arrays = list(map(pyarrow.array, columns, self.columns.types))
        self.writer.write_table(pyarrow.Table.from_arrays(arrays, schema=self.columns))
        self.rows = []


@dataclass
class EvenlySpacedSample:
    """An evenly spaced sample of a stream of unknown length: every 2^k-th item, at most `limit`."""

    limit: int
    items: list = field(default_factory=list)
    step: int = 1
    n_offered: int = 0

    def offer(self, item: Any):
        if self.n_offered % self.step == 0:
            self.items.append(item)
            # Dropping every second item keeps the rest evenly spaced.
            if len(self.items) > self.limit:
                self.items = self.items[::2]
                self.step *= 2
        self.n_offered += 1


class Manifest:
    """The record of what was kept and dropped.

    n_kept: kept examples.
    dropped: dropped items for each reason.
    examples, prior_examples, dropped_items, look_alikes: some of them to look at.
    sizes: images by (width, height).
    """

    def __init__(self, folder: Path):
        """Begin both tables in a folder."""
        self.n_kept = 0
        self.dropped: Counter[str] = Counter()
        self.examples = EvenlySpacedSample(SHOWN_EXAMPLES)
        self.prior_examples = EvenlySpacedSample(SHOWN_PRIOR)
        self.dropped_items: dict[str, list[Skipped]] = {}
        self.look_alikes: list[tuple[Example, Example]] = []
        self.sizes: Counter[tuple[int, int]] = Counter()
        self._near = NearDuplicateFilter(ALIKE)
        self._among: dict[str, Example] = {}
        self._kept_table = TableWriter(folder / KEPT, KEPT_COLUMNS)
        self._dropped_table = TableWriter(folder / DROPPED, DROPPED_COLUMNS)

    @property
    def wants_hashes(self) -> bool:
        """True while perceptual hashes serve to find look-alikes."""
        return self.n_kept < AMONG

    @property
    def examples_to_show(self) -> list[Example]:
        """Some of the kept examples that have an image, those of the source before the prior's."""
        # a user looks for the own pictures among them, and the prior may be many more
        items = [*self.examples.items, *self.prior_examples.items]
        return [example for example in items if example.image is not None]

    def keep(self, example: Example, info: ImageInfo):
        self.n_kept += 1
        digest = info.digest.hex()
        self._kept_table.add(
            example.id, example.caption, info.width, info.height, digest, example.prior
        )
        (self.prior_examples if example.prior else self.examples).offer(example)
        if example.image is not None:
            self.sizes[info.width, info.height] += 1
            self._find_look_alike(example, info)

    def _find_look_alike(self, example: Example, info: ImageInfo):
        if len(self.look_alikes) == PAIRS or info.phash is None:
            return
        if match := self._near.find(info.phash):
            self.look_alikes.append((self._among[match[0]], example))
        # The filter remembers examples, and images in memory would stay there.
        elif self.wants_hashes and not isinstance(example.image, InMemory):
            self._near.add(example, info)
            self._among.setdefault(example.id, example)

    def drop(self, item: Skipped):
        self.dropped[item.reason] += 1
        self._dropped_table.add(item.id, item.reason, item.detail)
        # The first few are enough to look at, and a source may drop millions.
        items = self.dropped_items.setdefault(item.reason, [])
        if len(items) < PER_REASON:
            items.append(item)

    def close(self):
        self._kept_table.close()
        self._dropped_table.close()

    def discard(self):
        """Remove the unfinished tables."""
        self._kept_table.discard()
        self._dropped_table.discard()
