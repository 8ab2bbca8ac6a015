"""The items that a source yields: examples, whose images are not read yet, and skipped items."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any, Protocol
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

import numpy as np
from PIL import Image

from ..picturebook.captions import draw_scene
from ..picturebook.draw import draw_picture
from ..picturebook.snowmen import draw_snowman
from .captions import CaptionError, clean_caption
from .enclosure import open_regular
from .images import NO_FILE, NO_MEMBER, ImageError, decode

LARGEST = 1 << 28  # bytes of an image file
LARGEST_IN_MEMORY = 1 << 26  # bytes of one that comes with its example; many are held at once
# Compression methods that are read: a header of the others may ask for gigabytes.
METHODS = (ZIP_STORED, ZIP_DEFLATED)
NO_CAPTION = "image without caption"
TOO_LARGE = "image file is larger than 256 MiB"


class SourceError(ValueError):
    """A source that cannot be used or yields no usable example: which, why, what to do."""


class ImageRef(Protocol):
    """A reference to an image. It travels to other processes, so it holds little."""

    @property
    def name(self) -> str:
        """The image's location, the same in each run."""

    def stamp(self) -> str:
        """Return a change marker such as size and time, or "" if only the content can tell."""

    def load(self) -> tuple[Image.Image, bytes]:
        """Return the decoded image in its own size and mode, and the SHA-256 of its content.

        Errors: ImageError.
        """


@dataclass(frozen=True)
class Example:
    """A caption with a reference to its image, or a prompt without one (image None).

    metadata: further values of the source, such as `image_nsfw`.
    prior: whether the example is there to preserve what the base knows.
    """

    id: str
    caption: str
    image: ImageRef | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    prior: bool = False


@dataclass(frozen=True)
class Skipped:
    """An image, a caption or a line that could not be used. detail: whatever helps to find it."""

    id: str
    reason: str
    detail: str = ""
    # Two skipped items are equal if they are so for the user.
    image: ImageRef | None = field(default=None, compare=False)


Item = Example | Skipped
Items = Iterator[Item]


def make_example(id: str, caption: str | bytes, image: ImageRef, **metadata: Any) -> Item:
    """Return an example with its caption cleaned, or the reason why the caption is not usable."""
    try:
        return Example(id, clean_caption(caption), image, metadata)
    except CaptionError as fault:
        return Skipped(id, str(fault), image=image)


@dataclass(frozen=True)
class InFile:
    """A file of a folder."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path)

    def stamp(self) -> str:
        return file_stamp(self.path)

    def load(self) -> tuple[Image.Image, bytes]:
        return _decode_and_hash(self.read())

    def read(self) -> bytes:
        """Return the image file's bytes, cut behind the largest size. Errors: ImageError."""
        try:
            with open_regular(self.path) as file:
                return file.read(LARGEST + 1)
        except OSError:
            raise ImageError(NO_FILE) from None


@dataclass(frozen=True)
class InZip(InFile):
    """A member of a zip archive, which is read and never unpacked. path: of the archive."""

    member: str

    @property
    def name(self) -> str:
        return f"{self.path}\0{self.member}"

    def read(self) -> bytes:
        try:
            with open_regular(self.path) as file, ZipFile(file) as archive:
                member = archive.getinfo(self.member)
                # zipfile never returns more bytes than the header announces.
                if max(member.file_size, member.compress_size) > LARGEST:
                    raise ImageError(TOO_LARGE)
                if member.compress_type not in METHODS:
                    raise ImageError(NO_MEMBER)
                return archive.read(member)
        except ImageError:
            raise
        except Exception:  # decompressors of damaged archives raise errors of many kinds
            raise ImageError(NO_MEMBER) from None


@dataclass(frozen=True)
class InTar(InFile):
    """A range of bytes in an uncompressed tar archive. path: of the archive."""

    offset: int
    size: int

    @property
    def name(self) -> str:
        return f"{self.path}\0{self.offset}"

    def read(self) -> bytes:
        # Checked before the read, which allocates as much as it is asked for.
        if self.size > LARGEST:
            raise ImageError(TOO_LARGE)
        try:
            with open_regular(self.path) as file:
                file.seek(self.offset)
                data = file.read(self.size)
        except OSError:
            raise ImageError(NO_MEMBER) from None
        if len(data) < self.size:
            raise ImageError("archive is cut short")
        return data


@dataclass(frozen=True)
class InMemory:
    """Bytes that came with the example. version: a change marker of their data set, or ""."""

    name: str
    data: bytes = field(repr=False)  # mebibytes would fill an error's text
    version: str = ""

    def stamp(self) -> str:
        return self.version

    def load(self) -> tuple[Image.Image, bytes]:
        return _decode_and_hash(self.data)


@dataclass(frozen=True)
class SyntheticImage:
    """A picture that code draws, always the same.

    kind: picturebook or unseen.
    code: hash of the code that draws.
    """

    kind: str
    seed: int
    number: int
    code: str

    @property
    def name(self) -> str:
        return f"{self.kind} {self.seed} {self.number}"

    def stamp(self) -> str:
        return self.code

    def load(self) -> tuple[Image.Image, bytes]:
        image = self.draw()
        # There is no file, so the pixels are the content.
        return image, sha256(np.asarray(image).tobytes()).digest()

    def draw(self) -> Image.Image:
        # The texts that seed the generators are part of the data set: others give other pictures.
        if self.kind == "unseen":
            return draw_snowman(Random(f"unseen {self.seed} {self.number}"))[0]
        scene = draw_scene(Random(f"example {self.seed} {self.number}"), held_out=False)
        return draw_picture(scene, Random(f"picture {self.seed} {self.number}"))


def _decode_and_hash(data: bytes) -> tuple[Image.Image, bytes]:
    # Files are read to a byte behind the limit, which tells that they go on.
    if len(data) > LARGEST:
        raise ImageError(TOO_LARGE)
    return decode(data), sha256(data).digest()


def file_stamp(path: str | Path) -> str:
    """Return what changes when a file is written to, "" if there is no such file."""
    try:
        status = os.stat(path)
    except OSError:
        return ""
    # The time of the last change of the inode tells even if a program set mtime back.
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
