"""Receipts: the results of whole passes over sources, so that unchanged sources are not read again.

A receipt is a row of the index, and a folder of links to the files that the pass left in its run's
folder `prepare/`:

    outputs/cache/.receipts/REQUEST-STAMP/    kept.parquet …

REQUEST is a hash over the parameters, the base and this package's code; STAMP is one over the
sources' change stamps. A receipt may be lost at any time.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from ...config import PLACE, Prepare
from ...files import atomic_folder, erase, files_in, hardlink_or_copy, value_hash
from ...models import StableDiffusion
from ...run.environment import versions
from ...run.fingerprint import code_hash
from ..hashes import hash128
from ..sources import open_source, source_options
from .database import Database

FOLDER = ".receipts"
# Endings of the files that a pass leaves in its run; other files there are not touched.
LEFT = (".parquet", ".png")
# Parameters that change nothing in a cache.
WITHOUT_EFFECT = {*PLACE, "num_processes", "batch_size"}


@dataclass(frozen=True)
class Receipt:
    """The result of a pass: the cache's key, dropped items by reason, and whether more was left."""

    key: str
    dropped: dict[str, int]
    more: bool


def request_hash(config: Prepare, base: StableDiffusion) -> str:
    """Return a hash over everything besides the sources that a pass depends on: 32 hex digits."""
    parameters = asdict(config)
    for name in WITHOUT_EFFECT & parameters.keys():
        del parameters[name]
    code = code_hash("prepare", "picturebook")
    return hash128([parameters, base.hash, code, versions()])


def sources_stamp(config: Prepare) -> str:
    """Return a hash that changes when a source does, "" if nothing tells. Errors: SourceError."""
    requests = [(config.source, config.max_examples)]
    if config.prior_preservation_source:
        requests.append((config.prior_preservation_source, config.prior_preservation_max_examples))
    stamps = []
    for name, count in requests:
        source = open_source(name, source_options(config, count))
        stamps.append(source.stamp())
    # One source that may have changed without a trace is enough to read all again.
    return value_hash(stamps) if all(stamps) else ""


@dataclass
class Receipts:
    """The receipts of a store."""

    store: Path
    database: Database

    @property
    def folder(self) -> Path:
        return self.store / FOLDER

    def find(self, request: str, stamp: str) -> Receipt | None:
        """Return the receipt of a request if its sources have not changed."""
        query = "SELECT cache, dropped, more FROM receipts WHERE request = ? AND stamp = ?"
        rows = self.database.select(query, (request, stamp)) if stamp else []
        # A row without its files is of no use, and the other way round.
        if not rows or not self._files(request, stamp).is_dir():
            return None
        key, dropped, more = rows[0]
        try:
            return Receipt(key, json.loads(dropped), bool(more))
        except (ValueError, TypeError):  # the file was changed by another program
            return None

    def copy_files(self, request: str, stamp: str, folder: Path):
        """Link the files of a receipt into another run's folder `prepare/`."""
        folder.mkdir(parents=True, exist_ok=True)
        # Files of an earlier pass with other parameters would be mixed with these.
        for path in _left_files(folder):
            path.unlink()
        for path in files_in(self._files(request, stamp)):
            hardlink_or_copy(path, folder / path.name)

    def write(self, request: str, stamp: str, receipt: Receipt, folder: Path):
        """Write a receipt in place of an older one. folder: `prepare/` of the run."""
        self.folder.mkdir(exist_ok=True)
        files = self._files(request, stamp)
        # Files come first: a row must never point to files of another pass.
        with atomic_folder(files, replace=True) as part:
            for path in _left_files(folder):
                hardlink_or_copy(path, part / path.name)
        dropped = json.dumps(receipt.dropped)
        row = (request, stamp, receipt.key, dropped, receipt.more)
        self.database.write("INSERT OR REPLACE INTO receipts VALUES (?, ?, ?, ?, ?)", [row])
        # Only the newest receipt of a request is kept; the files of others would stay for ever.
        for path in self.folder.glob(f"{request}*"):
            if path != files:
                erase(path)

    def forget_without(self, keys: set[str]):
        """Remove the receipts whose cache is not among `keys`, and folders without a receipt."""
        if not self.folder.is_dir():
            return
        rows = self.database.select("SELECT request, stamp, cache FROM receipts", ())
        gone = []
        used = set()
        for request, stamp, cache in rows:
            if cache in keys:
                used.add(self._files(request, stamp))
            else:
                gone.append((request,))
        if gone:
            self.database.write("DELETE FROM receipts WHERE request = ?", gone)
        for path in self.folder.iterdir():
            if path not in used:
                erase(path)

    def _files(self, request: str, stamp: str) -> Path:
        return self.folder / f"{request}-{stamp[:16]}"


def _left_files(folder: Path) -> list[Path]:
    return [path for path in files_in(folder) if path.suffix in LEFT]
