"""A source gone through once: what is kept is encoded while more is being read.

It is read in chunks. For each in turn: encoding processes look at its images, as far as these were not seen in an earlier
run; the filters decide, one example after the other; and what is kept goes on the shelf.
"""

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from ...config import Prepare
from ...config.validation import setting
from ...run.progress_bar import progress_bar
from ..examples import Example, InMemory, Skipped, SourceError
from ..filters import Filters, ImageInfo
from ..manifest import AMONG, Manifest
from ..sources import Source, open_source, source_options
from ..store.image_index import ImageIndex
from .shard_writer import ShardWriter

PIXELS = 1 << 25
"""Bytes of pictures that a chunk may have, as a process holds a few chunks."""
HELD = 1 << 26  # bytes of image files that come with a chunk's examples, about
ROWS = 128  # of a chunk, at most: the last ones leave some processes idle
PRIOR = 1 << 40  # what the numbers of a prior's chunks begin with


@dataclass
class Chunk:
    """Some of a source. looks: what is known of its images, by their places; question: where others were asked about."""

    number: int
    items: list[Example | Skipped]
    looks: dict[int, ImageInfo] = field(default_factory=dict)
    stamps: dict[int, str] = field(default_factory=dict)
    question: int | None = None


class Ingest:
    """Goes through the sources of a stage.

    total: examples that there are at most, or None; looked_at: images that were read; more: whether there was enough before
    the end of a source.
    """

    def __init__(self, config: Prepare, shelf: ShardWriter, notes: Manifest, seen: ImageIndex):
        self.config, self.shelf, self.notes, self.seen = config, shelf, notes, seen
        self.total: int | None = 0
        self.looked_at, self.more, self._left = 0, False, False

    def all(self):
        """The source, and the prior. Errors: SourceError where nothing is kept; what the processes raise."""
        self.one(self.config.source, self.config.max_examples, prior=False)
        if self.config.prior_preservation_source:
            self.one(
                self.config.prior_preservation_source,
                self.config.prior_preservation_max_examples,
                prior=True,
            )

    def one(self, name: str, count: int, prior: bool):
        """One source, to its end or until enough is kept."""
        source, filters = (
            open_source(name, source_options(self.config, count)),
            Filters(self.config),
        )
        there = source.total()
        total = self._at_most(there, count)
        dropped, before = self.notes.dropped.copy(), self.notes.kept
        chunks, ahead = enumerate(_chunks(source, self._rows()), PRIOR * prior), deque()
        with progress_bar(
            "prior" if prior else "read", total=total, unit=" examples", mininterval=1, ascii=" #"
        ) as bar:
            while not count or self.notes.kept - before < count:
                while len(ahead) < 2 * self.shelf.members and (following := next(chunks, None)):
                    ahead.append(self._look(Chunk(*following), filters, prior))
                if not ahead:
                    break
                chosen = self._choose(
                    self._looked(chunk := ahead.popleft()), filters, count and before + count
                )
                self.shelf.put(chunk.number, chosen, chunk.stamps.keys())
                bar.update(len(chosen))
            else:
                self.more |= self._left or bool(ahead) or next(chunks, None) is not None
        if self.notes.kept == before:
            raise _nothing(name, self.notes.dropped - dropped)

    def _at_most(self, there: int | None, count: int) -> int | None:
        total = min(there, count) if there and count else there or count or None
        self.total = self.total + total if self.total is not None and total else None
        return total

    def _rows(self) -> int:
        rows = max(1, min(ROWS, PIXELS // (3 * self.config.resolution**2)))
        return rows // 8 * 8 or rows

    def _look(self, chunk: Chunk, filters: Filters, prior: bool) -> Chunk:
        """Have the images looked at that no filter drops unseen and that are not remembered."""
        chunk.items = [self._named(each, prior) for each in chunk.items]
        images = {i: each.image for i, each in enumerate(chunk.items)
                  if isinstance(each, Example) and each.image is not None and not filters.before(each)}  # fmt: skip
        hashed = self.config.near_duplicates >= 0 or self.notes.kept < AMONG
        stamps = {i: place.stamp() for i, place in images.items()}
        known = zip(
            images,
            self.seen.known(list(images.values()), list(stamps.values()), hashed),
            strict=True,
        )
        chunk.looks = {i: look for i, look in known if look}
        unseen = {i: place for i, place in images.items() if i not in chunk.looks}
        if unseen:
            chunk.stamps = {i: stamps[i] for i in unseen}
            chunk.question = self.shelf.look(chunk.number, unseen, hashed)
            self.looked_at += len(unseen)
        return chunk

    def _named(self, each: Example | Skipped, prior: bool) -> Example | Skipped:
        if prior:
            return replace(
                each,
                id=f"prior/{each.id}",
                **({"prior": True} if isinstance(each, Example) else {}),
            )
        if self.config.template and isinstance(each, Example) and each.caption:
            return replace(each, caption=self.config.template.replace("{}", each.caption))
        return each

    def _looked(self, chunk: Chunk) -> Chunk:
        if chunk.question is not None:
            fresh = self.shelf.reply(chunk.question)
            chunk.looks |= fresh
            self.seen.remember(
                (chunk.items[i].image, chunk.stamps[i], look) for i, look in fresh.items()
            )
        return chunk

    def _choose(
        self, chunk: Chunk, filters: Filters, most: int
    ) -> list[tuple[int, Example, ImageInfo]]:
        """What is kept of a chunk, until `most` are; 0 is without end. _left: whether there was more of it then."""
        chosen, self._left = [], False
        for i, each in enumerate(chunk.items):
            if most and self.notes.kept == most:
                self._left = True
                break
            if isinstance(each, Skipped):
                self.notes.drop(each)
                continue
            look = chunk.looks.get(i, ImageInfo())
            if reason := filters.before(each) or filters.after(each, look):
                self.notes.drop(Skipped(each.id, *reason, each.image))
            else:
                chosen.append((i, each, look))
                self.notes.keep(each, look)
        return chosen


def _chunks(source: Source, rows: int) -> Iterator[list[Example | Skipped]]:
    """Lists of so many, as the source is read; of fewer, where their images come with them and are large."""
    chunk, held = [], 0
    for each in source:
        chunk.append(each)
        place = each.image if isinstance(each, Example) else each.place
        held += len(place.data) if isinstance(place, InMemory) else 0
        if len(chunk) == rows or held >= HELD:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk


def _nothing(name: str, dropped: Counter) -> SourceError:
    """What to say of a source of which nothing is kept."""
    if set(dropped) == {"image without caption"}:
        return SourceError(
            f"source {name!r}: none of its {dropped['image without caption']} images has a caption; write a .txt file of "
            f"the same name beside each, or a metadata.jsonl with file_name and text, or give "
            f"{setting('prepare', 'captions', 'names')}"
        )
    if dropped:
        counts = ", ".join(f"{number} × {reason}" for reason, number in dropped.most_common())
        return SourceError(
            f"source {name!r}: nothing in it can be used ({counts}); mend it or give another source"
        )
    return SourceError(
        f"source {name!r} has no images in it, of the kinds that can be read; give another source"
    )
