"""What an earlier pass over an unchanged source came to: then it need not be gone through again.

    outputs/cache/.receipts/REQUEST/
      receipt.json        stamp of the sources, key of the cache, dropped {reason: count}, more
      kept.parquet …      what the pass left in its run's folder `prepare/`

REQUEST is a hash over what was asked for, the base and this room's code. A receipt may be lost at any time.
"""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...config import Prepare
from ...files import atomic_folder, files_in, hardlink_or_copy, value_hash, write_atomic
from ...models import StableDiffusion
from ...run.environment import versions
from ...run.fingerprint import code_hash
from ..sources import open_source, source_options

FOLDER, RECEIPT = ".receipts", "receipt.json"
LEFT = (".parquet", ".png")
"""Endings of the files that a pass leaves in its run; all others there are somebody else's."""
ELSEWHERE = ("run", "num_processes", "batch_size")
"""Parameters that change nothing of a cache."""


def request_of(config: Prepare, base: StableDiffusion) -> str:
    """What is asked for, as 32 hex digits."""
    told = {name: value for name, value in asdict(config).items() if name not in ELSEWHERE}
    return value_hash([told, base.hash, code_hash("prepare", "picturebook"), versions()])[:32]


def stamp_of_sources(config: Prepare) -> str:
    """What changes when a source does; "" where nothing tells. Errors: SourceError."""
    sources = [open_source(config.source, source_options(config, config.max_examples))]
    sources += (
        [
            open_source(
                config.prior_preservation_source,
                source_options(config, config.prior_preservation_max_examples),
            )
        ]
        if config.prior_preservation_source
        else []
    )
    stamps = [source.stamp() for source in sources]
    return value_hash(stamps) if all(stamps) else ""


def read_receipt(store: Path, request: str, stamp: str) -> dict[str, Any] | None:
    """The receipt of a request, if its sources are what they were."""
    try:
        told = json.loads((store / FOLDER / request / RECEIPT).read_text("utf-8"))
        return told if stamp and told["stamp"] == stamp and isinstance(told["key"], str) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def reuse_receipt(store: Path, request: str, own: Path):
    """What the earlier pass left, for another run. own: the run's folder `prepare/`."""
    own.mkdir(parents=True, exist_ok=True)
    kept = {
        path.name: path for path in (store / FOLDER / request).iterdir() if path.name != RECEIPT
    }
    for path in files_in(own):
        if path.name not in kept and path.suffix in LEFT:
            path.unlink()
    for name, path in kept.items():
        (own / name).unlink(missing_ok=True)
        hardlink_or_copy(path, own / name)


def write_receipt(store: Path, request: str, own: Path, told: dict[str, Any]):
    """Note what a pass came to. told: stamp, key, dropped, more."""
    (store / FOLDER).mkdir(exist_ok=True)
    with atomic_folder(store / FOLDER / request, replace=True) as part:
        for path in files_in(own):
            if path.suffix in LEFT:
                hardlink_or_copy(path, part / path.name)
        write_atomic(part / RECEIPT, json.dumps(told, indent=1))


def forget_without(store: Path, keys: set[str]):
    """Remove the receipts whose cache is not among these keys."""
    for folder in (store / FOLDER).iterdir() if (store / FOLDER).exists() else []:
        try:
            known = json.loads((folder / RECEIPT).read_text("utf-8"))["key"] in keys
        except (OSError, ValueError, KeyError, TypeError):
            known = False
        if not known:
            shutil.rmtree(folder, ignore_errors=True)
