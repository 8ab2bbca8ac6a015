"""One pass over the sources: examples are read, decoded and filtered, and kept ones handed on.

A source is read in chunks. For each in turn, workers decode its images, except those in the image
index; the filters decide on one example after the other; and the shard writer takes those kept.
While a chunk is filtered, the next ones are being decoded. Of several hosts, the one that owns a
chunk decodes it and tells the others the images' properties, so that all of them decide the same.
"""

from collections import Counter, deque
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

from ...config import Prepare
from ...config.validation import setting
from ...run.progress_bar import progress_bar
from ..captioning.drafts import Drafts, add_captions
from ..examples import NO_CAPTION, Example, ImageRef, Item, Skipped, SourceError
from ..filters import Filters, ImageInfo
from ..manifest import Manifest
from ..sources import open_source, source_options
from ..store.image_index import ImageIndex
from .chunks import Chunk, agreed_chunks, split_into_chunks
from .encoder import Cropping
from .shard_writer import KeptExample, ShardWriter
from .workers import WorkerPool

PICTURE_BYTES = 1 << 25  # bytes of a chunk's pictures, as a worker holds a few chunks
CHUNK_ROWS = 128  # of a chunk, at most: the last chunks leave some workers idle
PRIOR = 1 << 40  # number of the first chunk of a prior


@dataclass
class Ingest:
    """One pass over the sources of a stage.

    index: of images; None on a host that does not keep it.
    drafts: captions for images without one; None on a further host, and without a captioner.
    total: examples that are expected at most, or None.
    decoded: images that were read.
    more: whether a source had more examples than were asked for.
    """

    config: Prepare
    cropping: Cropping
    pool: WorkerPool
    index: ImageIndex | None
    manifest: Manifest
    writer: ShardWriter
    drafts: Drafts | None = None
    total: int | None = 0
    decoded: int = 0
    more: bool = False

    def read_all(self):
        """Read the source and the prior.

        Errors: SourceError if nothing of one is kept; errors of the workers.
        """
        config = self.config
        # Two chunks for each worker of all hosts: one is decoded while the other waits.
        self._ahead = 2 * sum(self.pool.hosts.gather(self.pool.n_workers))
        self.read_source(config.source, config.max_examples, prior=False)
        if config.prior_preservation_source:
            limit = config.prior_preservation_max_examples
            self.read_source(config.prior_preservation_source, limit, prior=True)

    def read_source(self, name: str, limit: int, prior: bool):
        """Read one source to its end, or until `limit` examples are kept (0: no limit)."""
        source = open_source(name, source_options(self.config, limit))
        filters = Filters(self.config)
        total = self._expect(source.total(), limit)
        kept_before = self.manifest.n_kept
        dropped_before = self.manifest.dropped.copy()
        end = kept_before + limit if limit else None
        chunks = agreed_chunks(split_into_chunks(source, self._rows()), name, self.pool.hosts)
        chunks = enumerate(chunks, PRIOR * prior)
        pending = deque()
        title = "prior" if prior else "read"
        with progress_bar(title, total=total, unit=" examples", mininterval=1, ascii=" #") as bar:
            while self.manifest.n_kept != end:
                for number, items in islice(chunks, self._ahead - len(pending)):
                    items = self._caption(items)
                    chunk = Chunk(number, [self._adapt(item, prior) for item in items])
                    self._start_decoding(chunk, filters)
                    pending.append(chunk)
                if not pending:
                    break
                chunk = pending.popleft()
                self._finish_decoding(chunk)
                examples = self._filter(chunk, filters, end)
                self.writer.add_chunk(chunk.number, examples, chunk.decoded)
                bar.update(len(examples))
            else:
                self.more |= bool(pending) or next(chunks, None) is not None
        if self.manifest.n_kept == kept_before:
            raise nothing_kept(name, self.manifest.dropped - dropped_before)

    def _expect(self, available: int | None, limit: int) -> int | None:
        """Return how many examples a source gives at most, and add them to the total."""
        counts = [count for count in (available, limit) if count]
        total = min(counts, default=None)
        # The total of both sources is unknown if that of one is.
        if self.total is not None:
            self.total = self.total + total if total else None
        return total

    def _rows(self) -> int:
        """Return the rows of a chunk, a multiple of 8 if there are so many."""
        picture = 3 * self.config.resolution**2
        rows = max(1, min(CHUNK_ROWS, PICTURE_BYTES // picture))
        return rows // 8 * 8 or rows

    def _caption(self, items: list[Item]) -> list[Item]:
        """Return the items of a chunk, those without a caption with a draft, if there are some."""
        if not self.config.captioner:
            return items
        # Host 0 has the drafts of earlier runs, so it alone captions.
        share = self.pool.hosts.share
        return add_captions(items, share(lambda: self.drafts.captions_of(items, self.pool)))

    def _adapt(self, item: Item, prior: bool) -> Item:
        """Mark an item of the prior; put the template's words around other captions."""
        template = self.config.template
        if prior:
            # Source and prior may be the same folder, and ids must differ.
            marks = {"prior": True} if isinstance(item, Example) else {}
            return replace(item, id=f"prior/{item.id}", **marks)
        if template and isinstance(item, Example) and item.caption:
            return replace(item, caption=template.replace("{}", item.caption))
        return item

    def _start_decoding(self, chunk: Chunk, filters: Filters):
        """Queue the images that pass the caption filters and are not in the image index."""
        images = {}
        for i, item in enumerate(chunk.items):
            if isinstance(item, Example):
                reason = filters.before(item)
                chunk.reasons[i] = reason
                if item.image is not None and reason is None:
                    images[i] = item.image
        hashed = self.config.near_duplicates >= 0 or self.manifest.wants_hashes
        chunk.infos = self.pool.hosts.share(lambda: self._known(chunk, images, hashed))
        new = {i: image for i, image in images.items() if i not in chunk.infos}
        chunk.decoded = list(new)
        self.decoded += len(new)
        number = chunk.number
        if new and self.pool.hosts.owns(number):
            # The chunk's number as key: the same worker encodes what it has decoded.
            arguments = (number, new, self.cropping, hashed)
            chunk.ticket = self.pool.submit(number, "decode_images", *arguments)

    def _known(self, chunk: Chunk, images: dict[int, ImageRef], hashed: bool) -> dict:
        """Return the properties of images that are in the index, by position.

        Called on the host that keeps the index, which notes the stamps of the other images.
        """
        # Stamps are taken before the images are read: a later change then shows.
        stamps = [image.stamp() for image in images.values()]
        infos = self.index.find(list(images.values()), stamps, hashed)
        known = {}
        for i, stamp, info in zip(images, stamps, infos, strict=True):
            if info is None:
                chunk.stamps[i] = stamp
            else:
                known[i] = info
        return known

    def _finish_decoding(self, chunk: Chunk):
        if not chunk.decoded:
            return
        result = partial(self.pool.result, chunk.ticket)
        infos = self.pool.hosts.share(result, chunk.number)
        chunk.infos |= infos
        if self.index is None:
            return
        # Remembered at once: a run that is killed need not read these images again.
        entries = []
        for i, info in infos.items():
            image = chunk.items[i].image
            entries.append((image, chunk.stamps[i], info))
        self.index.remember(entries)

    def _filter(self, chunk: Chunk, filters: Filters, end: int | None) -> list[KeptExample]:
        """Return the examples of a chunk that are kept, until `end` are kept in all."""
        examples = []
        for i, item in enumerate(chunk.items):
            if self.manifest.n_kept == end:
                self.more = True
                break
            if isinstance(item, Skipped):
                self.manifest.drop(item)
                continue
            info = chunk.infos.get(i, ImageInfo())  # a prompt has no image
            reason = chunk.reasons[i] or filters.after(item, info)
            if reason:
                self.manifest.drop(Skipped(item.id, *reason, item.image))
            else:
                self.manifest.keep(item, info)
                examples.append(KeptExample(i, item, info))
        return examples


def nothing_kept(name: str, dropped: Counter) -> SourceError:
    """Return the error of a source of which nothing is kept."""
    if set(dropped) == {NO_CAPTION}:
        return SourceError(
            f"source {name!r}: none of its {dropped[NO_CAPTION]} images has a caption; "
            "write a .txt file of the same name beside each, or a metadata.jsonl with file_name "
            f"and text, or give {setting('prepare', 'captions', 'names')}, or name a captioner"
        )
    if dropped:
        counts = ", ".join(f"{number} × {reason}" for reason, number in dropped.most_common())
        return SourceError(
            f"source {name!r}: nothing in it can be used ({counts}); fix it or give another source"
        )
    return SourceError(
        f"source {name!r} has no images in it, of the kinds that can be read; give another source"
    )
