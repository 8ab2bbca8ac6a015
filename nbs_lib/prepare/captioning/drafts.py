"""Captions that a model drafts for images without one, in the store's index by picture and model.

A picture is known by the hash of its content, so it is captioned once, wherever it lies. A caption
that anybody has written goes before a draft.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

from ...config import Prepare
from ..captions import CaptionError, clean_caption
from ..examples import NO_CAPTION, Example, ImageRef, InFile, Item, Skipped
from ..images import ImageError
from ..store.database import Database
from .captioner import captioner_hash, find_captioner

BATCH = 8  # pictures that a worker captions at once


class Workers(Protocol):
    """The pool of processes, in which the models of a preparation are."""

    def submit(self, key: int, job: str, *arguments: Any) -> int:
        """Queue a job for the worker of a key; return the ticket of its result."""

    def result(self, ticket: int) -> Any:
        """Wait for a result."""


@dataclass
class Drafts:
    """The captions of one model.

    folder: of the model.
    model: its hash.
    """

    folder: Path
    model: str
    database: Database

    def find(self, digests: Iterable[bytes]) -> dict[bytes, str]:
        """Return the captions that are known, by the digest of their picture."""
        digests = list(digests)
        marks = ",".join("?" * len(digests))
        query = f"SELECT digest, caption FROM drafts WHERE model = ? AND digest IN ({marks})"
        return dict(self.database.select(query, (self.model, *digests)))

    def captions_of(self, items: list[Item], pool: Workers) -> dict[int, str]:
        """Return the captions of a chunk's images without one, by their positions in it."""
        images = {i: item.image for i, item in enumerate(items) if is_captionless(item)}
        digests = {i: content_digest(image) for i, image in images.items()}
        digests = {i: digest for i, digest in digests.items() if digest}
        captions = self.find(set(digests.values()))
        new = {digest: images[i] for i, digest in digests.items() if digest not in captions}
        captions |= self._draft(new, pool)
        # a model may have nothing to say
        return {i: captions[digest] for i, digest in digests.items() if captions[digest]}

    def _draft(self, images: dict[bytes, ImageRef], pool: Workers) -> dict[bytes, str]:
        digests = list(images)
        batches = [digests[start : start + BATCH] for start in range(0, len(digests), BATCH)]
        tickets = []
        for key, batch in enumerate(batches):
            refs = [images[digest] for digest in batch]
            tickets.append(pool.submit(key, "draft_captions", self.folder, refs))
        captions = {}
        for batch, ticket in zip(batches, tickets, strict=True):
            texts = map(_clean, pool.result(ticket))
            drafted = dict(zip(batch, texts, strict=True))
            captions |= drafted
            # remembered at once: a run that is killed need not caption these again
            rows = [(digest, self.model, text) for digest, text in drafted.items()]
            self.database.write("INSERT OR REPLACE INTO drafts VALUES (?, ?, ?)", rows)
        return captions


def open_drafts(config: Prepare, database: Database) -> Drafts | None:
    """Return the drafts of the captioner, None without one. Errors: SourceError."""
    if not config.captioner:
        return None
    folder = find_captioner(config.captioner)
    return Drafts(folder, captioner_hash(folder), database)


def add_captions(items: list[Item], captions: Mapping[int, str]) -> list[Item]:
    """Return items, those without a caption as examples with one. captions: by position."""
    items = list(items)
    for i, caption in captions.items():
        items[i] = Example(items[i].id, caption, items[i].image)
    return items


def is_captionless(item: Item) -> bool:
    """Return True for an image that was skipped because it has no caption."""
    return isinstance(item, Skipped) and item.reason == NO_CAPTION and item.image is not None


def content_digest(image: ImageRef) -> bytes:
    """Return the SHA-256 of an image's content, b"" if it cannot be read."""
    try:
        # the bytes of a file serve, and decoding them takes long
        return sha256(image.read()).digest() if isinstance(image, InFile) else image.load()[1]
    except ImageError:
        return b""


def _clean(text: str) -> str:
    try:
        return clean_caption(text)
    except CaptionError:
        return ""
