"""Images' properties, remembered between runs, so that an unchanged collection is not read again.

An entry holds while the image's change stamp and the code that decodes images stay the same.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from ..examples import ImageRef
from ..filters import ImageInfo
from ..images import TRANSIENT_FAULTS
from .database import Database


@dataclass
class ImageIndex:
    """The images of the index, by name.

    code: hash over all that an ImageInfo depends on; entries of other code are not used.
    """

    database: Database
    code: str

    def find(
        self,
        images: list[ImageRef],
        stamps: list[str],
        hashed: bool,
    ) -> list[ImageInfo | None]:
        """Return the properties of each image, None if it is new or has changed.

        stamps: the images' change stamps now.
        hashed: whether an entry needs a perceptual hash.
        """
        names = [_as_text(image.name) for image in images]
        marks = ",".join("?" * len(names))
        query = (
            "SELECT name, stamp, digest, width, height, phash, fault FROM images"
            f" WHERE code = ? AND name IN ({marks})"
        )
        # One query for a chunk: one for each image would take longer than its stamp.
        entries = {}
        rows = self.database.select(query, (self.code, *names))
        for name, stamp, *columns in rows:
            info = _from_row(*columns)
            # An image without a stamp may have changed without a trace. A fault needs no hash.
            if stamp and (info.fault or not hashed or info.phash is not None):
                entries[name, stamp] = info
        return [entries.get(entry) for entry in zip(names, stamps, strict=True)]

    def remember(self, entries: Iterable[tuple[ImageRef, str, ImageInfo]]):
        """Store images, each with the stamp that it had before it was decoded."""
        rows = [
            (_as_text(image.name), self.code, stamp, *_as_row(info))
            for image, stamp, info in entries
            if stamp and info.fault not in TRANSIENT_FAULTS  # these may be gone the next time
        ]
        if rows:
            statement = "INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
            self.database.write(statement, rows)


def _as_row(info: ImageInfo) -> tuple:
    # SQLite's whole numbers are signed: a hash of 64 bits does not fit.
    phash = None if info.phash is None else info.phash.to_bytes(8)
    return info.digest, info.width, info.height, phash, info.fault


def _from_row(
    digest: bytes,
    width: int,
    height: int,
    phash: bytes | None,
    fault: str,
) -> ImageInfo:
    number = None if phash is None else int.from_bytes(phash)
    return ImageInfo(digest, width, height, number, fault)


def _as_text(name: str) -> str:
    """Return a name as text that SQLite can hold; one with unprintable characters becomes hex."""
    return name if name.isprintable() else name.encode("utf-8", "surrogateescape").hex()
