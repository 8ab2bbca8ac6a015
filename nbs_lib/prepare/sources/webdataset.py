"""WebDataset: tar archives in which the files of an example follow each other and share a name up to its first dot.

    000017.jpg, 000017.txt      or  000017.json with text, caption or prompt in it

An archive is read in place and never unpacked, so no name in it reaches the disk.
"""

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from ..captions import LONGEST, TEXT_COLUMNS, CaptionError, clean_caption, decode_caption
from ..enclosure import Enclosure, EnclosureError, open_regular
from ..examples import Example, InTar, Skipped, change_stamp
from . import SourceError
from .folder import CAPTIONS, ENDINGS
from .readers.tar_members import Member, TarError, members

KNOWN = (*ENDINGS, *CAPTIONS, ".json")
DAMAGED = "archive is cut short or damaged"


class WebDataset:
    """Archives in order. given: what they were asked for as; folder: which none may lead out of, None for a user's own path."""

    def __init__(self, archives: list[Path], given: str, folder: Path | None = None):
        if not archives:
            raise SourceError(f"source {given!r}: no archive has such a name")
        self.archives, self.enclosure = archives, folder and Enclosure(folder)

    def total(self) -> None:
        return None

    def stamp(self) -> str:
        return str([(str(path), change_stamp(path)) for path in self.archives])

    def __iter__(self) -> Iterator[Example | Skipped]:
        for archive in self.archives:
            try:
                with (
                    self.enclosure.open(archive)
                    if self.enclosure
                    else open_regular(archive) as file
                ):
                    yield from _examples(archive, file)
            except EnclosureError as fault:
                yield Skipped(decode_caption(archive.name), str(fault))
            except OSError:
                yield Skipped(decode_caption(archive.name), DAMAGED)


def _examples(archive: Path, file: BinaryIO) -> Iterator[Example | Skipped]:
    key, found, damage = None, {}, None
    try:
        for member in members(file):
            stem, ending = _split(member.name)
            if stem != key:
                if key is not None:
                    yield _example(archive, key, found)
                key, found = stem, {}
            if ending in KNOWN:
                found[ending] = _held(archive, file, member, ending)
    except (TarError, OSError) as fault:
        damage = fault
    if key is not None:
        yield _example(archive, key, found)
    if damage:
        yield Skipped(decode_caption(archive.name), DAMAGED)


def _held(archive: Path, file: BinaryIO, member: Member, ending: str) -> InTar | bytes:
    """The place of an image, or the bytes of a caption's file; a byte more than are read where it has more."""
    if ending in ENDINGS:
        return InTar(archive, member.offset, member.size)
    file.seek(member.offset)
    return file.read(min(member.size, LONGEST + 1))


def _split(name: str) -> tuple[str, str]:
    path = PurePosixPath(name)
    stem, dot, ending = path.name.partition(".")
    return str(path.parent / stem), (dot + ending).lower()


def _example(archive: Path, key: str, found: dict[str, Any]) -> Example | Skipped:
    id = decode_caption(f"{archive.stem}/{key}")
    place = next((held for ending, held in found.items() if ending in ENDINGS), None)
    if place is None:
        return Skipped(id, "caption without image")
    try:
        text = next((found[ending] for ending in CAPTIONS if found.get(ending) is not None), None)
        if text is None and found.get(".json") is not None:
            text = _from_json(found[".json"])
        if text is None:
            return Skipped(id, "image without caption", place=place)
        return Example(id, clean_caption(text), place)
    except CaptionError as fault:
        return Skipped(id, str(fault), place=place)


def _from_json(data: bytes) -> str | None:
    try:
        told = json.loads(data)
    except (ValueError, RecursionError):
        raise CaptionError("caption is not JSON") from None
    texts = [told[name] for name in TEXT_COLUMNS if name in told] if isinstance(told, dict) else []
    return next((text for text in texts if isinstance(text, str)), None)
