"""DiffusionDB, the reference's data, in its parts as they are published.

    images/part-000001.zip    1,000 PNGs, and part-000001.json: {"NAME.png": {"p": prompt, …}}
    metadata.parquet          image_name, prompt, part_id, seed, step, cfg, sampler, width, height,
                              image_nsfw, prompt_nsfw

Source: Wang et al., arXiv 2210.14896; https://huggingface.co/datasets/poloclub/diffusiondb.
"""

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from ...models.checks.headers import first_line
from ..captions import decode_caption
from ..enclosure import Enclosure, EnclosureError
from ..examples import InZip, Item, Items, Skipped, SourceError, make_example
from ..filters import SCORES
from .base import SourceOptions, files_stamp
from .diffusiondb_part import TableRows, read_contents, rows_of_part
from .readers.parquet import TableError

REPOSITORY, METADATA = "poloclub/diffusiondb", "metadata.parquet"
PARTS = 2000
IMAGES_PER_PART = 1000
COLUMNS = ("seed", "step", "cfg", "sampler", "width", "height", *SCORES)
# The names that the data set's own loading script has.
SUBSET = re.compile(r"2m_(first|random)_(\d+)(k?)")
PART_NAME = re.compile(r"part-(\d{6})\.zip")
NO_SCORES = "scores cannot be read"


def parts_of(subset: str, seed: int) -> list[int]:
    """Return the numbers of a subset's parts.

    2m_first_10k are the first ten, 2m_random_5k five random ones, and a plain number that many of
    the first. Errors: SourceError.
    """
    numbers = range(1, PARTS + 1)
    if subset.isdecimal() and 0 < int(subset) <= PARTS:
        return list(numbers[: int(subset)])
    if subset == "2m_all":
        return list(numbers)
    match = SUBSET.fullmatch(subset)
    n_images = 0
    if match:
        n_images = int(match[2]) * (1000 if match[3] else 1)
    count, rest = divmod(n_images, IMAGES_PER_PART)
    if rest or not 0 < count <= PARTS:
        raise SourceError(
            f"subset {subset!r} of DiffusionDB: give 2m_first_1k, 2m_first_10k, 2m_random_5k and "
            f"the like, 2m_all, or a number of parts up to {PARTS}"
        )
    # Random parts are sorted, so that a subset has one order whatever chance drew first.
    if match[1] == "first":
        return list(numbers[:count])
    return sorted(Random(seed).sample(numbers, count))


class DiffusionDB:
    """A copy in a folder; all of its parts, or those of a subset.

    fetch: downloads a file and returns its path; None if all files are in the folder.
    """

    def __init__(
        self,
        folder: Path,
        options: SourceOptions,
        fetch: Callable[[str], Path] | None = None,
    ):
        self.folder = folder
        self.fetch = fetch
        self.enclosure = Enclosure(folder)
        if options.subset:
            self.parts = parts_of(options.subset, options.seed)
        else:
            names = [path.name for path in (folder / "images").iterdir()]
            matches = filter(None, map(PART_NAME.fullmatch, names))
            self.parts = sorted(int(match[1]) for match in matches)
        if not self.parts:
            raise SourceError(
                f"source {str(folder)!r}: no images/part-000001.zip or the like in it"
            )

    def total(self) -> int:
        return len(self.parts) * IMAGES_PER_PART

    def stamp(self) -> str:
        """Return what changes when a part or the table does, "" if parts are downloaded."""
        if self.fetch:
            return ""
        paths = [self.folder / METADATA]
        paths += [self.folder / _archive(part) for part in self.parts]
        return files_stamp(paths)

    def __iter__(self) -> Items:
        for part in self.parts:
            name = _archive(part)
            # Parts are downloaded one by one: all of them have 1.6 TB.
            archive = self.fetch(name) if self.fetch else self.folder / name
            if os.path.lexists(archive):
                yield from self._read_part(part, archive)
            else:
                yield Skipped(decode_caption(archive.name), "part is not there")

    def _read_part(self, part: int, archive: Path) -> Items:
        try:
            with self.enclosure.open(archive) as file:
                names, prompts = read_contents(file)
        except EnclosureError as fault:  # a link out of the folder, or a pipe
            yield Skipped(decode_caption(archive.name), str(fault))
            return
        except Exception:  # errors of the disk, the archive, its compression
            yield Skipped(decode_caption(archive.name), "archive is cut short or damaged")
            return
        if prompts is None:
            reason = f"prompts cannot be read: those of {METADATA} are taken"
            yield Skipped(f"part-{part:06d}.json", reason)
            prompts = {}
        # Images are kept without their scores; the filters decide whether they need them.
        rows, fault = self._read_rows(part, {_base_name(name) for name in names})
        if fault:
            yield Skipped(METADATA, NO_SCORES, f"part {part}: {fault}")
        for name in names:
            base_name = _base_name(name)
            image = InZip(archive, name)
            yield _example(part, image, prompts.get(base_name), rows.get(base_name, {}))

    def _read_rows(self, part: int, names: set[str]) -> tuple[TableRows, str]:
        """Return the table's rows of a part's images, and what is wrong with the table, or ""."""
        try:
            with self.enclosure.open(self.folder / METADATA) as file:
                return rows_of_part(file, part, names, COLUMNS, SCORES)
        except (TableError, EnclosureError) as fault:
            return {}, str(fault)
        except OSError as failure:
            return {}, failure.strerror or str(failure)


def _example(part: int, image: InZip, record: Any, row: dict[str, Any]) -> Item:
    """Return the example of an image.

    record: its entry in the part's JSON.
    row: its row in the table.
    """
    id = f"part-{part:06d}/{decode_caption(image.member)}"
    # Nothing is unpacked, but such a name tells that the archive is not what it claims to be.
    if ".." in image.member.split("/") or image.member.startswith("/"):
        return Skipped(id, "names a file outside the archive")
    # JSON and table were written by somebody else, so any value may have any type.
    prompt = record.get("p") if isinstance(record, dict) else None
    if not isinstance(prompt, str):
        prompt = row.get("prompt")
    if not isinstance(prompt, str | bytes):
        # not NO_CAPTION: a drafted caption would have no score to be filtered by
        return Skipped(id, "image without prompt", image=image)
    # A missing score must not pass as a low one, so scores have their entry in any case.
    metadata = dict.fromkeys(SCORES)
    for name in COLUMNS:
        if row.get(name) is not None:
            metadata[name] = row[name]
    return make_example(id, prompt, image, **metadata)


def _archive(part: int) -> str:
    return f"images/part-{part:06d}.zip"


def _base_name(name: str) -> str:
    return name.rsplit("/", 1)[-1]


def open_on_hub(subset: str, options: SourceOptions) -> DiffusionDB:
    """Return a subset on the hub, each part downloaded when it is read. Errors: SourceError."""
    from huggingface_hub import hf_hub_download

    def fetch(name: str) -> Path:
        try:
            return Path(hf_hub_download(REPOSITORY, name, repo_type="dataset"))
        except Exception as failure:  # errors of the hub, the network and the disk
            message = first_line(failure)
            raise SourceError(
                f"source 'diffusiondb:{subset}': {name} cannot be fetched from the hub: {message}"
            ) from None

    options = replace(options, subset=subset or options.subset)
    # A wrong name is refused before anything is downloaded.
    parts_of(options.subset, options.seed)
    return DiffusionDB(fetch(METADATA).parent, options, fetch)
