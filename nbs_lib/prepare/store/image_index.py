"""What images looked like: remembered between runs by their place and by what changes when they do, so that an unchanged
collection is not read again."""

import errno
import os
import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ..examples import ImageRef
from ..filters import ImageInfo
from ..images import PASSING

NAME = "seen.sqlite"


class ImageIndex:
    """The memory, a file beside the caches that all runs share. code: a hash over what makes a Look; others are forgotten.

    It may be lost at any time: then images are read again.
    """

    def __init__(self, store: Path, code: str):
        store.mkdir(parents=True, exist_ok=True)
        self.path, self.code = store / NAME, code
        try:
            self._open()
        except sqlite3.OperationalError:  # no place to write
            raise
        except sqlite3.DatabaseError:  # damaged, or of another kind
            self._anew()

    def _anew(self) -> list:
        """Begin again with nothing, in the place of a damaged file."""
        with suppress(AttributeError, sqlite3.Error):
            self.db.close()
        for ending in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + ending).unlink(missing_ok=True)
        self._open()
        return []

    def _open(self):
        self.db = sqlite3.connect(self.path, timeout=60, isolation_level=None)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute(
            "PRAGMA synchronous=OFF"
        )  # what a crash of the machine takes is looked at again
        self.db.execute(
            "CREATE TABLE IF NOT EXISTS seen (place TEXT, code TEXT, stamp TEXT, digest BLOB, width INT, height INT,"
            " phash BLOB, fault TEXT, PRIMARY KEY (place, code)) WITHOUT ROWID"
        )

    def known(
        self, places: list[ImageRef], stamps: list[str], hashed: bool
    ) -> list[ImageInfo | None]:
        """The look of each place, or None where it was not seen, or changed since. stamps: what the places have now; hashed:
        whether a look without a perceptual hash will not do."""
        names = [_text(place.name) for place in places]
        marks = ",".join("?" * len(names))
        asked = f"SELECT place, stamp, digest, width, height, phash, fault FROM seen WHERE code = ? AND place IN ({marks})"
        try:
            rows = self.db.execute(asked, (self.code, *names)).fetchall()
        except sqlite3.OperationalError:  # another process holds it
            rows = []
        except sqlite3.DatabaseError:
            rows = self._anew()
        found = {place: (stamp, ImageInfo(digest, width, height, None if phash is None else int.from_bytes(phash), fault))
                 for place, stamp, digest, width, height, phash, fault in rows}  # fmt: skip
        looks = []
        for name, stamp in zip(names, stamps, strict=True):
            before, look = found.get(name, ("", None))
            lacking = hashed and look and look.phash is None and not look.fault
            looks.append(look if stamp and stamp == before and not lacking else None)
        return looks

    def remember(self, looks: Iterable[tuple[ImageRef, str, ImageInfo]]):
        """Each place with the stamp that it had before it was looked at."""
        rows = [
            (_text(place.name), self.code, stamp, look.digest, look.width, look.height,
             None if look.phash is None else look.phash.to_bytes(8), look.fault)
            for place, stamp, look in looks
            if stamp and look.fault not in PASSING
        ]  # fmt: skip
        if not rows:
            return
        try:
            self.db.execute("BEGIN")
            self.db.executemany("INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
            self.db.execute("COMMIT")
        except sqlite3.OperationalError as failure:
            if self.db.in_transaction:  # or no other could begin
                self.db.rollback()
            if "full" in str(failure):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path)) from None
            # or another process holds it: these are looked at again then
        except sqlite3.DatabaseError:
            self._anew()

    def close(self):
        self.db.close()


def _text(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").hex() if not name.isprintable() else name
