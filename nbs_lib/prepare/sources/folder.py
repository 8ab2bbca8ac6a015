"""A folder of images and its subfolders. A caption is, in this order of precedence,

- a line of `metadata.jsonl`, `metadata.csv` or `metadata.parquet` at the top of the folder (`file_name`, `text`), as
  Hugging Face's imagefolder has them, whatever `captions` says; such images come first, in the table's order, and of several
  tables in this order of theirs;
- the image's name itself, where `captions` is "names"; no file beside it is read then;
- else a file with the stem of its image: `cat.txt`, or without that `cat.caption`, beside `cat.png`.

Hidden files and folders are left alone. Nothing outside the folder is read: a link that leads out of it is listed, but for
those of a hub's download, whose files are links to its blobs.
"""

import os
import posixpath
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from ..captions import LONGEST, CaptionError, clean_caption, decode_caption, from_name
from ..enclosure import LEADS_NOWHERE, LEADS_OUT, Enclosure, EnclosureError
from ..examples import Example, InFile, Skipped, change_stamp
from ..hashes import Hashes
from . import SourceOptions
from .readers.folder_listing import Listing, walk
from .readers.parquet import TableError
from .table_rows import ENDINGS as TABLES
from .table_rows import named_images

ENDINGS = (
    ".avif",
    ".bmp",
    ".gif",
    ".heic",
    ".jpeg",
    ".jpg",
    ".png",
    ".ppm",
    ".tif",
    ".tiff",
    ".webp",
)
CAPTIONS = (".txt", ".caption")
METADATA = "metadata"
NO_CAPTION_FILE = "caption file cannot be read"


class Folder:
    """See the module's docstring."""

    def __init__(self, folder: Path, how: SourceOptions):
        self.folder, self.how, self.enclosure = folder, how, Enclosure(folder)

    def total(self) -> int:
        return sum(
            name.lower().endswith(ENDINGS)
            for listing in walk(self.folder)
            for name in listing.files
        )

    def stamp(self) -> str:
        """What changes when any file in it does; "" where a folder is not looked into: a link, or one that cannot be read."""
        digest = sha256()
        for listing in walk(self.folder):
            if listing.links or not listing.readable:
                return ""
            for name in listing.files:
                path = os.path.join(listing.path, name)
                digest.update(
                    f"{path}\0{change_stamp(path)}\0{os.path.islink(path)}\n".encode(
                        "utf-8", "surrogateescape"
                    )
                )
        return digest.hexdigest()

    def __iter__(self) -> Iterator[Example | Skipped]:
        settled = Hashes()  # of names: a folder may hold millions
        for ending in TABLES:
            if os.path.lexists(table := self.folder / f"{METADATA}{ending}"):
                yield from self._from_own_table(table, settled)
        for listing in walk(self.folder):
            yield from self._not_followed(listing)
            yield from self._from_names(listing.path, listing.files, settled)

    def has_images(self) -> bool:
        return any(
            name.lower().endswith(ENDINGS)
            for listing in walk(self.folder)
            for name in listing.files
        )

    def _not_followed(self, listing: Listing) -> Iterator[Skipped]:
        within = listing.path.relative_to(self.folder)
        if not listing.readable:
            yield Skipped(decode_caption(within.as_posix()), "folder cannot be read")
        for name in listing.links:
            yield Skipped(
                decode_caption((within / name).as_posix()),
                "link to a folder, which is not followed",
            )

    def _from_own_table(self, table: Path, settled: Hashes) -> Iterator[Example | Skipped]:
        try:
            with self.enclosure.open(table) as file:
                yield from self.from_table(file, table.name, settled)
        except EnclosureError as fault:
            yield Skipped(table.name, str(fault))

    def from_table(
        self, file: BinaryIO, table: str, settled: Hashes | set
    ) -> Iterator[Example | Skipped]:
        """Yield the images that a table names. table: its name."""
        try:
            for where, name, text in named_images(file, table, self.how):
                if isinstance(text, CaptionError):
                    yield Skipped(where, str(text))
                    continue
                name = posixpath.normpath(name)
                if name.startswith(("/", "../")) or name == "..":
                    yield Skipped(where, "names a file outside the folder", decode_caption(name))
                elif any(part.startswith(".") for part in name.split("/")):
                    yield Skipped(where, "names a hidden file", decode_caption(name))
                elif "\0" in name or not os.path.isfile(os.path.join(self.folder, name)):
                    yield Skipped(where, "names a file that is not there", decode_caption(name))
                elif hash(name) in settled:
                    yield Skipped(where, "names a file a second time", decode_caption(name))
                else:
                    settled.add(hash(name))
                    yield self._example(name, lambda text=text: clean_caption(text))
        except TableError as fault:
            yield Skipped(decode_caption(table), str(fault))

    def _from_names(
        self, parent: Path, names: list[str], settled: Hashes
    ) -> Iterator[Example | Skipped]:
        beside = {
            posixpath.splitext(name)[0]: name
            for name in names
            if name.lower().endswith(CAPTIONS[1])
        }
        beside |= {
            posixpath.splitext(name)[0]: name
            for name in names
            if name.lower().endswith(CAPTIONS[0])
        }
        images = [name for name in names if name.lower().endswith(ENDINGS)]
        within = parent.relative_to(self.folder)
        if self.how.captions == "files":
            for stem in sorted(beside.keys() - {posixpath.splitext(name)[0] for name in images}):
                yield Skipped(
                    decode_caption((within / beside[stem]).as_posix()), "caption without image"
                )
        for name in images:
            path = (within / name).as_posix()
            if hash(path) in settled:
                continue
            stem = posixpath.splitext(name)[0]
            if self.how.captions == "names":
                yield self._example(path, lambda name=name: from_name(name))
            elif stem in beside:
                yield self._example(path, lambda file=beside[stem]: self._read(parent / file))
            else:
                yield Skipped(
                    decode_caption(path),
                    "image without caption",
                    place=self._place(self.folder / path),
                )

    def _example(self, name: str, caption: Callable[[], str]) -> Example | Skipped:
        path = self.folder / name
        try:
            self.enclosure.check(path)
            return Example(decode_caption(name), caption(), InFile(path))
        except (EnclosureError, CaptionError) as fault:
            return Skipped(decode_caption(name), str(fault), place=self._place(path))

    def _place(self, path: Path) -> InFile | None:
        """Where an image is that cannot be used but may be shown; None for what is no file of this folder."""
        try:
            self.enclosure.check(path)
        except EnclosureError:
            return None
        return InFile(path)

    def _read(self, path: Path) -> str:
        """The caption in a file. Errors: CaptionError, EnclosureError."""
        try:
            with self.enclosure.open(path) as file:
                return clean_caption(file.read(LONGEST + 1))
        except OSError:
            raise CaptionError(NO_CAPTION_FILE) from None
        except EnclosureError as fault:
            raise (
                fault if str(fault) in (LEADS_OUT, LEADS_NOWHERE) else CaptionError(NO_CAPTION_FILE)
            ) from None
