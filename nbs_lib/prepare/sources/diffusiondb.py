"""DiffusionDB, the reference's data, in its parts as they are published.

    images/part-000001.zip    1,000 PNGs, and part-000001.json: {"NAME.png": {"p": prompt, "se": seed, …}}
    metadata.parquet          image_name, prompt, part_id, seed, step, cfg, sampler, width, height, image_nsfw, prompt_nsfw

Source: Wang et al., arXiv 2210.14896; https://huggingface.co/datasets/poloclub/diffusiondb.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from zipfile import ZipFile

import pyarrow
import pyarrow.dataset

from ..captions import CaptionError, clean, valid_text
from ..examples import Example, InZip, Skipped, stamp_of
from . import Asked, SourceError
from .tables import TableError

REPOSITORY, METADATA = "poloclub/diffusiondb", "metadata.parquet"
PARTS, IN_A_PART = 2000, 1000
SCORES = ("image_nsfw", "prompt_nsfw")
KNOWN = ("seed", "step", "cfg", "sampler", "width", "height", *SCORES)
SUBSET = re.compile(r"2m_(first|random)_(\d+)(k?)|2m_all")
JSON_MOST = 1 << 26  # bytes of a part's JSON


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

    def __init__(self, folder: Path, how: Asked, fetch: Callable[[str], Path] | None = None):
        self.folder, self.fetch = folder, fetch
        if how.subset:
            self.parts = parts_of(how.subset, how.seed)
        else:
            found = (re.fullmatch(r"part-(\d{6})\.zip", path.name) for path in (folder / "images").iterdir())
            self.parts = sorted(int(match[1]) for match in found if match)
        if not self.parts:
            raise SourceError(f"source {str(folder)!r}: no images/part-000001.zip or the like in it")

    def total(self) -> int:
        return len(self.parts) * IN_A_PART

    def stamp(self) -> str:
        """ "" for one that is still fetched."""
        files = [self.folder / METADATA, *(self.folder / "images" / f"part-{part:06d}.zip" for part in self.parts)]
        return "" if self.fetch else str([(str(path), stamp_of(path)) for path in files])

    def __iter__(self) -> Iterator[Example | Skipped]:
        for part in self.parts:
            name = f"images/part-{part:06d}.zip"
            archive = self.fetch(name) if self.fetch else self.folder / name
            yield from self._of(part, archive)

    def _of(self, part: int, archive: Path) -> Iterator[Example | Skipped]:
        try:
            known = self._known(part)
        except TableError as fault:
            known = {}
            yield Skipped(METADATA, f"{fault}: nothing of part {part} is dropped for its scores")
        try:
            with ZipFile(archive) as opened:
                names = sorted(name for name in opened.namelist() if name.lower().endswith(".png"))
                prompts = self._prompts(opened)
        except FileNotFoundError:
            yield Skipped(valid_text(archive.name), "part is not there")
            return
        except Exception:  # of the disk, the archive, its compression, its JSON
            yield Skipped(valid_text(archive.name), "archive is cut short or damaged")
            return
        for name in names:
            id = f"part-{part:06d}/{valid_text(name)}"
            if ".." in name.split("/") or name.startswith("/"):
                yield Skipped(id, "names a file outside the archive")
                continue
            told, more = prompts.get(name.rsplit("/", 1)[-1]), known.get(name.rsplit("/", 1)[-1], {})
            prompt = told.get("p") if isinstance(told, dict) else more.get("prompt")
            place = InZip(archive, name)
            if not isinstance(prompt, str):
                yield Skipped(id, "image without caption", place=place)
                continue
            try:
                yield Example(id, clean(prompt), place, {key: more[key] for key in KNOWN if more.get(key) is not None})
            except CaptionError as fault:
                yield Skipped(id, str(fault), place=place)

    def _prompts(self, opened: ZipFile) -> dict:
        found = [each for each in opened.infolist() if each.filename.endswith(".json") and each.file_size <= JSON_MOST]
        told = json.loads(opened.read(found[0])) if found else {}
        return told if isinstance(told, dict) else {}

    def _known(self, part: int) -> dict[str, dict]:
        """What the table says of a part's images, by their names. Errors: TableError where it says no scores."""
        try:
            rows = pyarrow.dataset.dataset(self.folder / METADATA, format="parquet")
            missing = {"image_name", "part_id", *SCORES} - set(rows.schema.names)
            columns = [name for name in ("image_name", "prompt", *KNOWN) if name in rows.schema.names]
            found = (
                [] if missing else rows.to_table(columns=columns, filter=pyarrow.dataset.field("part_id") == part).to_pylist()
            )
        except (OSError, ValueError, pyarrow.ArrowException):
            raise TableError("scores cannot be read") from None
        if missing:
            raise TableError(f"scores cannot be read, for it lacks {', '.join(sorted(missing))}")
        return {row["image_name"]: row for row in found}


def on_the_hub(subset: str, how: Asked) -> DiffusionDB:
    """A subset from the hub, each part fetched when its turn comes. Errors: SourceError."""
    from dataclasses import replace

    from huggingface_hub import hf_hub_download

    def fetch(name: str) -> Path:
        try:
            return Path(hf_hub_download(REPOSITORY, name, repo_type="dataset"))
        except Exception as failure:  # the hub's, the network's and the disk's
            said = (str(failure).strip().splitlines() or [type(failure).__name__])[0]
            raise SourceError(f"source 'diffusiondb:{subset}': {name} cannot be fetched from the hub: {said}") from None

    how = replace(how, subset=subset or how.subset)
    parts_of(how.subset, how.seed)
    return DiffusionDB(fetch(METADATA).parent, how, fetch)
