"""Values by hashes of their keys, in a temporary file, for sets that may not fit into memory."""

import sqlite3
from collections.abc import Iterator

CACHE = 8192  # KiB of the file that are held in memory
MAX_HASH = 1 << 63


class TableError(RuntimeError):
    """A table that cannot be written because the disk of temporary files is full."""


class HashTable:
    """A table that takes the same memory for a hundred entries and for a hundred million.

    Its file is SQLite's own temporary one, which no other process sees and which ends with it.
    """

    def __init__(self):
        self._connection = sqlite3.connect("", isolation_level=None)
        # nothing of it has to survive a crash
        for pragma in ("journal_mode=OFF", "synchronous=OFF", f"cache_size=-{CACHE}"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._connection.execute("CREATE TABLE entries (number INTEGER PRIMARY KEY, hash, value)")
        self._connection.execute("CREATE INDEX hashes ON entries (hash)")
        # never committed: a commit would write each entry to the disk
        self._connection.execute("BEGIN")

    def __contains__(self, key: int) -> bool:
        return next(self.find(key), None) is not None

    def add(self, key: int, value: int | bytes = 1):
        """Add a value under a key of 64 bits, which may have others. Errors: TableError."""
        try:
            entry = (key - MAX_HASH, value)
            self._connection.execute("INSERT INTO entries (hash, value) VALUES (?, ?)", entry)
        except sqlite3.OperationalError as failure:
            raise TableError(
                f"the disk of temporary files: {failure}; make room there, or set SQLITE_TMPDIR "
                "to a folder with more room"
            ) from None

    def find(self, *keys: int) -> Iterator[int | bytes]:
        """Yield the values under some keys, in the order in which they were added."""
        # SQLite's whole numbers are signed
        hashes = [key - MAX_HASH for key in keys]
        marks = ",".join("?" * len(keys))
        query = f"SELECT value FROM entries WHERE hash IN ({marks}) ORDER BY number"
        for (value,) in self._connection.execute(query, hashes):
            yield value
