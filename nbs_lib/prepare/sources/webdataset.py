"""WebDataset: tar archives in which the files of an example follow each other and share a name up to its first dot.

    000017.jpg, 000017.txt      or  000017.json with text, caption or prompt in it

An archive is read in place and never unpacked, so no name in it reaches the disk.
"""

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from ..captions import TEXT_COLUMNS, CaptionError, clean, valid_text
from ..examples import Example, InTar, Skipped, stamp_of
from . import SourceError
from .folder import CAPTIONS, ENDINGS

MOST = 1 << 20  # bytes of a member with a caption


class WebDataset:
    """Archives in order. given: what they were asked for as."""

    def __init__(self, archives: list[Path], given: str):
        if not archives:
            raise SourceError(f"source {given!r}: no archive has such a name")
        self.archives = archives

    def total(self) -> None:
        return None

    def stamp(self) -> str:
        return str([(str(path), stamp_of(path)) for path in self.archives])

    def __iter__(self) -> Iterator[Example | Skipped]:
        for archive in self.archives:
            yield from self._of(archive)

    def _of(self, archive: Path) -> Iterator[Example | Skipped]:
        key, found = None, {}
        try:
            with tarfile.open(archive, "r:") as tar:
                before = -1
                while (member := tar.next()) is not None:
                    tar.members = []  # or else it remembers every one
                    if member.size < 0 or tar.offset <= before:
                        raise tarfile.TarError("a size that leads back")
                    before = tar.offset
                    if not member.isreg():
                        continue
                    stem, ending = _split(member.name)
                    if stem != key and found:
                        yield _example(archive, key, found)
                        found = {}
                    key = stem
                    found[ending] = self._held(archive, tar, member, ending)
                if not _ends(archive, tar.offset):  # tarfile takes a damaged header for the end
                    raise tarfile.TarError("no end")
        except (tarfile.TarError, OSError, EOFError, ValueError):
            yield Skipped(valid_text(archive.name), "archive is cut short or damaged")
        if found:
            yield _example(archive, key, found)

    def _held(self, archive: Path, tar: tarfile.TarFile, member: tarfile.TarInfo, ending: str) -> Any:
        if ending in ENDINGS:
            return InTar(archive, member.offset_data, member.size)
        if ending in (*CAPTIONS, ".json") and member.size <= MOST:
            return tar.extractfile(member).read()
        return None


def _ends(archive: Path, offset: int) -> bool:
    """Whether there is a tar's end at a place: a block of zeros."""
    with archive.open("rb") as file:
        file.seek(max(0, offset - tarfile.BLOCKSIZE))  # it may have been read past
        return bytes(tarfile.BLOCKSIZE) in file.read(2 * tarfile.BLOCKSIZE)


def _split(name: str) -> tuple[str, str]:
    path = PurePosixPath(name)
    stem, dot, ending = path.name.partition(".")
    return str(path.parent / stem), (dot + ending).lower()


def _example(archive: Path, key: str, found: dict[str, Any]) -> Example | Skipped:
    id = valid_text(f"{archive.stem}/{key}")
    place = next((held for ending, held in found.items() if ending in ENDINGS), None)
    if place is None:
        return Skipped(id, "caption without image")
    try:
        text = next((found[ending] for ending in CAPTIONS if found.get(ending) is not None), None)
        if text is None and found.get(".json") is not None:
            text = _from_json(found[".json"])
        if text is None:
            return Skipped(id, "image without caption", place=place)
        return Example(id, clean(text), place)
    except CaptionError as fault:
        return Skipped(id, str(fault), place=place)


def _from_json(data: bytes) -> str | None:
    try:
        told = json.loads(data)
    except (ValueError, RecursionError):
        raise CaptionError("caption is not JSON") from None
    texts = [told[name] for name in TEXT_COLUMNS if name in told] if isinstance(told, dict) else []
    return next((text for text in texts if isinstance(text, str)), None)
