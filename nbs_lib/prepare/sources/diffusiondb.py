"""DiffusionDB, the reference's data, in its parts as they are published.

    images/part-000001.zip    1,000 PNGs, and part-000001.json: {"NAME.png": {"p": prompt, "se": seed, …}}
    metadata.parquet          image_name, prompt, part_id, seed, step, cfg, sampler, width, height, image_nsfw, prompt_nsfw

Source: Wang et al., arXiv 2210.14896; https://huggingface.co/datasets/poloclub/diffusiondb.
"""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from ..captions import CaptionError, clean_caption, decode_caption
from ..enclosure import Enclosure, EnclosureError
from ..examples import Example, InZip, Skipped, change_stamp
from ..filters import SCORES
from . import SourceError, SourceOptions
from .diffusiondb_part import contents, rows_of_part
from .readers.parquet import TableError

REPOSITORY, METADATA = "poloclub/diffusiondb", "metadata.parquet"
PARTS, IN_A_PART = 2000, 1000
KNOWN = ("seed", "step", "cfg", "sampler", "width", "height", *SCORES)
SUBSET = re.compile(r"2m_(first|random)_(\d+)(k?)|2m_all")
NO_SCORES = "scores cannot be read"


def parts_of(subset: str, seed: int) -> list[int]:
    """The numbers of the parts that a subset's name means: 2m_first_10k are the first ten, 2m_random_5k five by chance.

    A plain number is that many of the first. Errors: SourceError.
    """
    if subset.isdigit() and 0 < int(subset) <= PARTS:
        return list(range(1, int(subset) + 1))
    told = SUBSET.fullmatch(subset)
    if told and not told[1]:
        return list(range(1, PARTS + 1))
    count = int(told[2]) * (1000 if told[3] else 1) if told else 0
    if not 0 < count <= PARTS * IN_A_PART or count % IN_A_PART:
        raise SourceError(
            f"subset {subset!r} of DiffusionDB: give 2m_first_1k, 2m_first_10k, 2m_random_5k and the like, 2m_all, or a number "
            f"of parts up to {PARTS}"
        )
    whole = range(1, PARTS + 1)
    count //= IN_A_PART
    return list(whole[:count]) if told[1] == "first" else sorted(Random(seed).sample(whole, count))


class DiffusionDB:
    """A copy in a folder; all of its parts, or those of a subset. fetch: brings a file that is not there yet."""

    def __init__(
        self, folder: Path, how: SourceOptions, fetch: Callable[[str], Path] | None = None
    ):
        self.folder, self.fetch, self.enclosure = folder, fetch, Enclosure(folder)
        if how.subset:
            self.parts = parts_of(how.subset, how.seed)
        else:
            found = (
                re.fullmatch(r"part-(\d{6})\.zip", path.name)
                for path in (folder / "images").iterdir()
            )
            self.parts = sorted(int(match[1]) for match in found if match)
        if not self.parts:
            raise SourceError(
                f"source {str(folder)!r}: no images/part-000001.zip or the like in it"
            )

    def total(self) -> int:
        return len(self.parts) * IN_A_PART

    def stamp(self) -> str:
        """ "" for one that is still fetched."""
        files = [
            self.folder / METADATA,
            *(self.folder / "images" / f"part-{part:06d}.zip" for part in self.parts),
        ]
        return "" if self.fetch else str([(str(path), change_stamp(path)) for path in files])

    def __iter__(self) -> Iterator[Example | Skipped]:
        for part in self.parts:
            name = f"images/part-{part:06d}.zip"
            archive = self.fetch(name) if self.fetch else self.folder / name
            if not os.path.lexists(archive):
                yield Skipped(decode_caption(archive.name), "part is not there")
            else:
                yield from self._part(part, archive)

    def _part(self, part: int, archive: Path) -> Iterator[Example | Skipped]:
        try:
            with self.enclosure.open(archive) as file:
                names, prompts = contents(file)
        except EnclosureError as fault:
            yield Skipped(decode_caption(archive.name), str(fault))
            return
        except Exception:  # of the disk, the archive, its compression
            yield Skipped(decode_caption(archive.name), "archive is cut short or damaged")
            return
        if prompts is None:
            yield Skipped(
                f"part-{part:06d}.json", f"prompts cannot be read: those of {METADATA} are taken"
            )
        known, fault = {}, ""
        try:
            with self.enclosure.open(self.folder / METADATA) as file:
                known, fault = rows_of_part(
                    file, part, {name.rsplit("/", 1)[-1] for name in names}, KNOWN, SCORES
                )
        except (TableError, EnclosureError) as failure:
            fault = str(failure)
        except OSError as failure:
            fault = failure.strerror or str(failure)
        if fault:
            yield Skipped(METADATA, NO_SCORES, f"part {part}: {fault}")
        for name in names:
            short = name.rsplit("/", 1)[-1]
            yield self._example(
                part, InZip(archive, name), (prompts or {}).get(short), known.get(short, {})
            )

    def _example(
        self, part: int, place: InZip, told: Any, more: dict[str, Any]
    ) -> Example | Skipped:
        """The example of an image. told: what the part's JSON says of it; more: what the table does."""
        id = f"part-{part:06d}/{decode_caption(place.member)}"
        if ".." in place.member.split("/") or place.member.startswith("/"):
            return Skipped(id, "names a file outside the archive")
        prompt = told.get("p") if isinstance(told, dict) else None
        prompt = prompt if isinstance(prompt, str) else more.get("prompt")
        if not isinstance(prompt, str | bytes):
            return Skipped(id, "image without caption", place=place)
        known = {name: more[name] for name in KNOWN if more.get(name) is not None}
        try:
            return Example(id, clean_caption(prompt), place, dict.fromkeys(SCORES) | known)
        except CaptionError as fault:
            return Skipped(id, str(fault), place=place)


def exists_on_hub(subset: str, how: SourceOptions) -> DiffusionDB:
    """A subset from the hub, each part fetched when its turn comes. Errors: SourceError."""
    from dataclasses import replace

    from huggingface_hub import hf_hub_download

    def fetch(name: str) -> Path:
        try:
            return Path(hf_hub_download(REPOSITORY, name, repo_type="dataset"))
        except Exception as failure:  # the hub's, the network's and the disk's
            said = (str(failure).strip().splitlines() or [type(failure).__name__])[0]
            raise SourceError(
                f"source 'diffusiondb:{subset}': {name} cannot be fetched from the hub: {said}"
            ) from None

    how = replace(how, subset=subset or how.subset)
    parts_of(how.subset, how.seed)
    return DiffusionDB(fetch(METADATA).parent, how, fetch)
