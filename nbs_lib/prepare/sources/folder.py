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
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from ..captions import LONGEST, CaptionError, clean, from_name, valid_text
from ..examples import Example, InFile, Skipped, stamp_of
from ..hashes import Hashes
from . import Asked
from .tables import ENDINGS as TABLES
from .tables import TableError, named_images

ENDINGS = (".avif", ".bmp", ".gif", ".heic", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
CAPTIONS = (".txt", ".caption")
METADATA = "metadata"


class Folder:
    """See the module's docstring."""

    def __init__(self, folder: Path, how: Asked):
        self.folder, self.how = folder, how
        self._linked: dict[str, bool] = {}  # of a folder whether a link leads to it
        self.inside = [folder.resolve()]
        if folder.resolve().parent.name == "snapshots":  # huggingface_hub's layout: snapshots/REVISION, and blobs beside
            self.inside.append(folder.resolve().parent.parent / "blobs")

    def total(self) -> int:
        return sum(name.lower().endswith(ENDINGS) for _, names in self._walk() for name in names)

    def stamp(self) -> str:
        """What changes when any file in it does; "" where a link leads to a folder, into which nothing looks here."""
        digest = sha256()
        for parent, folders, names in self._tree():
            if any(os.path.islink(os.path.join(parent, name)) for name in folders):
                return ""
            for name in names:
                path = os.path.join(parent, name)
                digest.update(f"{path}\0{stamp_of(path)}\0{os.path.islink(path)}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def __iter__(self) -> Iterator[Example | Skipped]:
        settled = Hashes()  # of names: a folder may hold millions
        for ending in TABLES:
            if (self.folder / f"{METADATA}{ending}").is_file():
                yield from self._from_table(self.folder / f"{METADATA}{ending}", settled)
        for parent, names in self._walk():
            yield from self._from_names(parent, names, settled)

    def has_images(self) -> bool:
        return any(name.lower().endswith(ENDINGS) for _, names in self._walk() for name in names)

    def _walk(self) -> Iterator[tuple[Path, list[str]]]:
        """Folders, and the names of their files, in order."""
        return ((parent, names) for parent, _, names in self._tree())

    def _tree(self) -> Iterator[tuple[Path, list[str], list[str]]]:
        """The same, with the names of their folders."""
        for parent, folders, names in os.walk(self.folder):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            yield Path(parent), folders, sorted(name for name in names if not name.startswith("."))

    def _from_table(self, table: Path, settled: Hashes) -> Iterator[Example | Skipped]:
        try:
            for where, name, text in named_images(table, self.how):
                if isinstance(text, CaptionError):
                    yield Skipped(where, str(text))
                    continue
                name = posixpath.normpath(name)
                if name.startswith(("/", "../")) or name == "..":
                    yield Skipped(where, "names a file outside the folder", valid_text(name))
                elif any(part.startswith(".") for part in name.split("/")):
                    yield Skipped(where, "names a hidden file", valid_text(name))
                elif "\0" in name or not os.path.isfile(os.path.join(self.folder, name)):
                    yield Skipped(where, "names a file that is not there", valid_text(name))
                elif hash(name) in settled:
                    yield Skipped(where, "names a file a second time", valid_text(name))
                else:
                    settled.add(hash(name))
                    yield self._example(name, lambda text=text: clean(text))
        except TableError as fault:
            yield Skipped(table.name, str(fault))

    def _from_names(self, parent: Path, names: list[str], settled: Hashes) -> Iterator[Example | Skipped]:
        beside = {posixpath.splitext(name)[0]: name for name in names if name.lower().endswith(CAPTIONS[1])}
        beside |= {posixpath.splitext(name)[0]: name for name in names if name.lower().endswith(CAPTIONS[0])}
        images = [name for name in names if name.lower().endswith(ENDINGS)]
        within = parent.relative_to(self.folder)
        if self.how.captions == "files":
            for stem in sorted(beside.keys() - {posixpath.splitext(name)[0] for name in images}):
                yield Skipped(valid_text((within / beside[stem]).as_posix()), "caption without image")
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
                yield Skipped(valid_text(path), "image without caption", place=self._place(self.folder / path))

    def _example(self, name: str, caption) -> Example | Skipped:
        path = self.folder / name
        try:
            self._stay_inside(path)
            if not os.path.isfile(path):  # a pipe would be read for ever
                raise CaptionError("not a file")
            return Example(valid_text(name), caption(), InFile(path))
        except CaptionError as fault:
            return Skipped(valid_text(name), str(fault), place=self._place(path))

    def _place(self, path: Path) -> InFile | None:
        """Where an image is that cannot be used but may be shown; None for what is no file of this folder."""
        try:
            self._stay_inside(path)
        except CaptionError:
            return None
        return InFile(path) if os.path.isfile(path) else None

    def _read(self, path: Path) -> str:
        self._stay_inside(path)
        if not path.is_file():
            raise CaptionError("caption file cannot be read")
        try:
            with path.open("rb") as file:
                return clean(file.read(LONGEST + 1))
        except OSError:
            raise CaptionError("caption file cannot be read") from None

    def _stay_inside(self, path: Path):
        """Errors: CaptionError for a link that leads out of the folder, to nothing or in a circle."""
        parent = os.path.dirname(path)
        if parent not in self._linked:
            self._linked[parent] = os.path.realpath(parent) != os.path.join(
                self.inside[0], os.path.relpath(parent, self.folder)
            )
        if not self._linked[parent] and not os.path.islink(path):
            return
        try:
            target = path.resolve(strict=True)
        except (OSError, RuntimeError):
            raise CaptionError("link that leads nowhere") from None
        if not any(target.is_relative_to(folder) for folder in self.inside):
            raise CaptionError("link that leads out of the folder")
