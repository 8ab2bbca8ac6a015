"""The index of a store: one SQLite file beside the caches, shared by all runs and processes.

It holds only what can be found out again, so it may be lost at any time.
"""

import errno
import os
import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ...run.progress_bar import write_above_bar

# A change of these columns needs another file name: an older file is then ignored, never misread.
NAME = "index.sqlite"
TABLES = (
    "CREATE TABLE IF NOT EXISTS images (name TEXT, code TEXT, stamp TEXT, digest BLOB, width INT,"
    " height INT, phash BLOB, fault TEXT, PRIMARY KEY (name, code)) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS receipts (request TEXT PRIMARY KEY, stamp TEXT, cache TEXT,"
    " dropped TEXT, more INT) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS drafts (digest BLOB, model TEXT, caption TEXT,"
    " PRIMARY KEY (digest, model)) WITHOUT ROWID",
)
PATIENCE = 60  # seconds to wait for another process that writes


class Database:
    """A connection to the index of a store, opened when it is first used."""

    def __init__(self, store: Path):
        self.path = store / NAME
        self._connection: sqlite3.Connection | None = None

    def select(self, query: str, values: Iterable) -> list[tuple]:
        """Return the rows of a query; none if the index is damaged, or in use for too long."""
        try:
            return self._open().execute(query, tuple(values)).fetchall()
        except sqlite3.OperationalError as failure:
            self._report(failure)
        except sqlite3.DatabaseError:  # the file is damaged, or is of another program
            self._begin_again()
        return []

    def write(self, statement: str, rows: Iterable[tuple]):
        """Execute a statement for each row, all or none. Errors: OSError of a full disk.

        Nothing is written if another process holds the index for too long.
        """
        try:
            connection = self._open()
            with connection:
                connection.execute("BEGIN")
                connection.executemany(statement, rows)
        except sqlite3.OperationalError as failure:
            if "full" in str(failure):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path)) from None
            self._report(failure)
        except sqlite3.DatabaseError:
            self._begin_again()

    def close(self):
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = sqlite3.connect(self.path, timeout=PATIENCE, isolation_level=None)
            try:
                connection.execute("PRAGMA journal_mode=WAL")
                # What a crash of the machine takes is found out again.
                connection.execute("PRAGMA synchronous=OFF")
                for table in TABLES:
                    connection.execute(table)
            except sqlite3.Error:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _begin_again(self):
        """Replace a damaged file by an empty one, which the next statement makes."""
        with suppress(sqlite3.Error):
            self.close()
        self._connection = None
        for ending in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + ending).unlink(missing_ok=True)

    def _report(self, failure: sqlite3.OperationalError):
        write_above_bar(f"index {self.path}: {failure}; unchanged images are read again")
