"""The chunks of a source: the parts in which it is read, decoded and encoded."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain

from ..examples import InMemory, Item, SourceError
from ..filters import ImageInfo, Reason
from ..hashes import hash128
from ..hosts.share import Hosts
from ..sources.base import Source

IMAGE_FILE_BYTES = 1 << 26  # bytes of image files that come with a chunk's examples, about


@dataclass
class Chunk:
    """A part of a source. Dicts have the positions of items as keys.

    reasons: why examples are dropped without their images.
    infos: properties of images.
    decoded: positions of images that a worker decodes.
    stamps: change stamps of these images, on the host that keeps the index.
    ticket: of the worker's result.
    """

    number: int
    items: list[Item]
    reasons: dict[int, Reason] = field(default_factory=dict)
    infos: dict[int, ImageInfo] = field(default_factory=dict)
    decoded: list[int] = field(default_factory=list)
    stamps: dict[int, str] = field(default_factory=dict)
    ticket: int | None = None


def split_into_chunks(source: Source, rows: int) -> Iterator[list[Item]]:
    """Yield lists of `rows` items, of fewer if large images come with them."""
    chunk = []
    in_memory = 0
    # Items of a table come with their images; such a chunk is bounded by bytes, too.
    for item in source:
        chunk.append(item)
        if isinstance(item.image, InMemory):
            in_memory += len(item.image.data)
        if len(chunk) == rows or in_memory >= IMAGE_FILE_BYTES:
            yield chunk
            chunk = []
            in_memory = 0
    if chunk:
        yield chunk


def agreed_chunks(chunks: Iterator[list[Item]], name: str, hosts: Hosts) -> Iterator[list[Item]]:
    """Yield the chunks of a source, which must be the same on all hosts.

    name: of the source.
    Errors: SourceError if they are not those of host 0.
    """
    if hosts.count == 1:
        yield from chunks
        return
    # The end is compared, too: one source may be longer than the other.
    for chunk in chain(chunks, ([],)):
        digest = hash128([[item.id, getattr(item, "caption", "")] for item in chunk])
        if hosts.share(lambda digest=digest: digest) != digest:
            raise SourceError(
                f"source {name!r}: host {hosts.rank} reads other examples than host 0; "
                "give all hosts the same files"
            )
        if chunk:
            yield chunk
