"""WebDataset: tar archives in which the files of an example follow one another.

They share a name up to its first dot:

    000017.jpg, 000017.txt      or  000017.json with text, caption or prompt in it

An archive is read in place and never unpacked, so no name in it reaches the disk.
"""

import json
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from ..captions import LONGEST, TEXT_COLUMNS, CaptionError, decode_caption
from ..enclosure import Enclosure, EnclosureError, open_regular
from ..examples import NO_CAPTION, InTar, Item, Items, Skipped, SourceError, make_example
from .base import files_stamp
from .folder import CAPTION_ENDINGS
from .readers.folder_listing import IMAGE_ENDINGS
from .readers.tar_members import Member, TarError, members

KNOWN = (*IMAGE_ENDINGS, *CAPTION_ENDINGS, ".json")
DAMAGED_ARCHIVE = "archive is cut short or damaged"
# The files of an example by their endings: an image's reference, or the bytes of a caption.
Files = dict[str, InTar | bytes]


class WebDataset:
    """Archives in order.

    name: of the source, for an error.
    folder: which no archive may lead out of; None for a path that the user gave.
    """

    def __init__(self, archives: list[Path], name: str, folder: Path | None = None):
        if not archives:
            raise SourceError(f"source {name!r}: no archive has such a name")
        self.archives = archives
        self.open = Enclosure(folder).open if folder else open_regular

    def total(self) -> None:
        """Return None: counting would read every archive to its end."""

    def stamp(self) -> str:
        return files_stamp(self.archives)

    def __iter__(self) -> Items:
        for archive in self.archives:
            try:
                with self.open(archive) as file:
                    yield from _read_archive(archive, file)
            except EnclosureError as fault:
                yield Skipped(decode_caption(archive.name), str(fault))
            except OSError:
                yield Skipped(decode_caption(archive.name), DAMAGED_ARCHIVE)


def _read_archive(archive: Path, file: BinaryIO) -> Items:
    key = None
    files = {}
    damaged = False
    try:
        for member in members(file):
            stem, ending = _split_name(member.name)
            if stem != key:
                # The name of the next example ends this one; nothing else tells its end.
                if key is not None:
                    yield _example(archive, key, files)
                key = stem
                files = {}
            # Data sets have many more files, such as `.cls` and `.npy`.
            if ending in KNOWN:
                files[ending] = _read_member(archive, file, member, ending)
    except (TarError, OSError):
        damaged = True
    # What came before the damage is kept.
    if key is not None:
        yield _example(archive, key, files)
    if damaged:
        yield Skipped(decode_caption(archive.name), DAMAGED_ARCHIVE)


def _read_member(archive: Path, file: BinaryIO, member: Member, ending: str) -> InTar | bytes:
    if ending in IMAGE_ENDINGS:
        return InTar(archive, member.offset, member.size)
    file.seek(member.offset)
    # A byte too many, so that a caption that is too long is refused and not cut.
    return file.read(min(member.size, LONGEST + 1))


def _split_name(name: str) -> tuple[str, str]:
    path = PurePosixPath(name)
    stem, dot, ending = path.name.partition(".")
    return str(path.parent / stem), (dot + ending).lower()


def _example(archive: Path, key: str, files: Files) -> Item:
    id = decode_caption(f"{archive.stem}/{key}")
    images = [file for ending, file in files.items() if ending in IMAGE_ENDINGS]
    if not images:
        return Skipped(id, "caption without image")
    image = images[0]
    try:
        text = _find_text(files)
    except CaptionError as fault:
        return Skipped(id, str(fault), image=image)
    if text is None:
        return Skipped(id, NO_CAPTION, image=image)
    return make_example(id, text, image)


def _find_text(files: Files) -> str | bytes | None:
    for ending in CAPTION_ENDINGS:
        if ending in files:
            return files[ending]
    if ".json" not in files:
        return None
    try:
        values = json.loads(files[".json"])
    except (ValueError, RecursionError):  # deep nesting exceeds Python's recursion
        raise CaptionError("caption is not JSON") from None
    if isinstance(values, dict):
        for name in TEXT_COLUMNS:
            if isinstance(values.get(name), str):
                return values[name]
    return None
