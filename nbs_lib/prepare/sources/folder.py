"""A folder of images and its subfolders.

A caption is, in this order of precedence,

- a row of `metadata.jsonl`, `metadata.csv` or `metadata.parquet` at the top of the folder
  (`file_name`, `text`), as Hugging Face's imagefolder has them, whatever `captions` is. Such images
  come first, in the table's order, and several tables in the order above;
- the image's name itself, if `captions` is "names"; no file beside it is read then;
- otherwise a file with the stem of its image: `cat.txt`, or without that `cat.caption`, beside
  `cat.png`.

Hidden files and folders are not read, and nothing outside the folder is: a link that leads out of
it is listed. Links of a download from the hub, which lead to its blobs, are allowed.
"""

import os
import posixpath
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from ..captions import LONGEST, CaptionError, caption_from_name, clean_caption, decode_caption
from ..enclosure import LEADS_NOWHERE, LEADS_OUT, Enclosure, EnclosureError
from ..examples import NO_CAPTION, Example, InFile, Item, Items, Skipped, file_stamp
from ..hashes import hash64
from ..hashes.table import HashTable
from .base import SourceOptions
from .readers.folder_listing import Listing, walk
from .readers.parquet import TableError
from .table_rows import TABLE_ENDINGS, named_images

CAPTION_ENDINGS = (".txt", ".caption")
METADATA_STEM = "metadata"  # stem of a table at the top of the folder
NO_CAPTION_FILE = "caption file cannot be read"


class ImageFolder:
    """A folder of images; see the module's docstring."""

    def __init__(self, folder: Path, options: SourceOptions):
        self.folder = folder
        self.options = options
        self.enclosure = Enclosure(folder)

    def total(self) -> int:
        return sum(len(listing.images()) for listing in walk(self.folder))

    def stamp(self) -> str:
        """Return what changes when any file does.

        Returns "" if a folder is not listed: a link, or one that cannot be read.
        """
        digest = sha256()
        for listing in walk(self.folder):
            if listing.links or not listing.readable:
                return ""
            for name in listing.files:
                path = os.path.join(listing.path, name)
                # A link replaced by an equal file changes what may be read.
                linked = os.path.islink(path)
                line = f"{path}\0{file_stamp(path)}\0{linked}\n"
                digest.update(line.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def __iter__(self) -> Items:
        # On disk, because a folder may hold millions.
        listed = HashTable()
        for ending in TABLE_ENDINGS:
            table = self.folder / f"{METADATA_STEM}{ending}"
            if os.path.lexists(table):
                yield from self._from_metadata(table, listed)
        for listing in walk(self.folder):
            yield from self._not_followed(listing)
            yield from self._from_listing(listing, listed)

    def _not_followed(self, listing: Listing) -> Iterator[Skipped]:
        relative = listing.path.relative_to(self.folder)
        if not listing.readable:
            yield Skipped(decode_caption(relative.as_posix()), "folder cannot be read")
        for name in listing.links:
            id = decode_caption((relative / name).as_posix())
            yield Skipped(id, "link to a folder, which is not followed")

    def _from_metadata(self, table: Path, listed: HashTable) -> Items:
        try:
            with self.enclosure.open(table) as file:
                yield from self.from_table(file, table.name, listed)
        except EnclosureError as fault:
            yield Skipped(table.name, str(fault))

    def from_table(self, file: BinaryIO, table: str, listed: HashTable) -> Items:
        """Yield the images that a table names.

        table: its name.
        listed: hashes of the names of images, to which those of the table are added.
        """
        try:
            for row, name, text in named_images(file, table, self.options):
                if isinstance(text, CaptionError):
                    yield Skipped(row, str(text))
                    continue
                # "./a.png" and "a.png" are one file, and "a/../../b.png" is outside.
                name = posixpath.normpath(name)
                if fault := self._fault_of_name(name, listed):
                    yield Skipped(row, fault, decode_caption(name))
                else:
                    listed.add(_key(name))
                    # The default value binds this row's text, not the last one's.
                    yield self._example(name, lambda text=text: clean_caption(text))
        except TableError as fault:
            yield Skipped(decode_caption(table), str(fault))

    def _fault_of_name(self, name: str, listed: HashTable) -> str:
        if name.startswith(("/", "../")) or name == "..":
            return "names a file outside the folder"
        if any(part.startswith(".") for part in name.split("/")):
            return "names a hidden file"
        path = os.path.join(self.folder, name)
        if "\0" in name or not os.path.isfile(path):
            return "names a file that is not there"
        return "names a file a second time" if _key(name) in listed else ""

    def _from_listing(self, listing: Listing, listed: HashTable) -> Items:
        relative = listing.path.relative_to(self.folder)
        images = listing.images()
        caption_files = _caption_files(listing.files)
        # Captions that stand in the names leave text files to other purposes.
        if self.options.captions == "files":
            alone = caption_files.keys() - set(map(_stem, images))
            for stem in sorted(alone):
                id = decode_caption((relative / caption_files[stem]).as_posix())
                yield Skipped(id, "caption without image")
        for image in images:
            name = (relative / image).as_posix()
            # The table goes first, and an image is used once.
            if _key(name) in listed:
                continue
            if self.options.captions == "names":
                yield self._example(name, lambda image=image: caption_from_name(image))
            elif caption_file := caption_files.get(_stem(image)):
                path = listing.path / caption_file
                yield self._example(name, lambda path=path: self._read_caption(path))
            else:
                image_ref = self._displayable(self.folder / name)
                yield Skipped(decode_caption(name), NO_CAPTION, image=image_ref)

    def _example(self, name: str, caption: Callable[[], str]) -> Item:
        path = self.folder / name
        try:
            self.enclosure.check(path)
            return Example(decode_caption(name), caption(), InFile(path))
        except (EnclosureError, CaptionError) as fault:
            return Skipped(decode_caption(name), str(fault), image=self._displayable(path))

    def _displayable(self, path: Path) -> InFile | None:
        """Return an unusable image that may still be shown; None if it is no file of the folder."""
        try:
            self.enclosure.check(path)
        except EnclosureError:
            return None
        return InFile(path)

    def _read_caption(self, path: Path) -> str:
        """Return the caption in a file. Errors: CaptionError, EnclosureError."""
        try:
            with self.enclosure.open(path) as file:
                return clean_caption(file.read(LONGEST + 1))
        except OSError:
            raise CaptionError(NO_CAPTION_FILE) from None
        except EnclosureError as fault:
            # The reason has to tell that the caption's file is meant, and not the image's.
            if str(fault) in (LEADS_OUT, LEADS_NOWHERE):
                raise
            raise CaptionError(NO_CAPTION_FILE) from None


def _caption_files(names: list[str]) -> dict[str, str]:
    """Return files of captions by their stem, `.txt` before `.caption`."""
    files = {}
    # The later ending overwrites the earlier one's file.
    for ending in reversed(CAPTION_ENDINGS):
        for name in names:
            if name.lower().endswith(ending):
                files[_stem(name)] = name
    return files


def _key(name: str) -> int:
    # The bytes of a name need not be UTF-8, which Python holds as surrogates.
    return hash64(name.encode("utf-8", "surrogatepass"))


def _stem(name: str) -> str:
    return posixpath.splitext(name)[0]
