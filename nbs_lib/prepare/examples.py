"""What a source yields: examples, whose images are not read yet, and what it could not make one of."""

import os
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any, Protocol
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

import numpy as np
from PIL import Image

from .enclosure import open_regular
from .images import NO_FILE, NO_MEMBER, ImageError, decode

LARGEST = 1 << 28
LARGEST_HELD = (
    1 << 26
)  # bytes of an image that travels with its example, as many of them are held at once
METHODS = (ZIP_STORED, ZIP_DEFLATED)
"""Of compression: others may say that they need gigabytes."""
TOO_LARGE = "image file is larger than 256 MiB"


class SourceError(ValueError):
    """A source that cannot be used, or that yields not a single usable example: which, why, what to do."""


class ImageRef(Protocol):
    """Where an image is. It travels to other processes, so it holds little."""

    name: str
    """Of the place, the same in each run."""

    def stamp(self) -> str:
        """What is the same for as long as the image there is: "" where only its content tells."""

    def look(self) -> tuple[Image.Image, bytes]:
        """The decoded image in its own size and mode, and the SHA-256 of its content. Errors: ImageError."""


@dataclass(frozen=True)
class Example:
    """A caption with the place of its image, or a prompt without one (image None).

    known: what the source says of it besides, such as `image_nsfw`. prior: whether it is there to keep what the base knew.
    """

    id: str
    caption: str
    image: ImageRef | None = None
    known: dict[str, Any] = field(default_factory=dict)
    prior: bool = False


@dataclass(frozen=True)
class Skipped:
    """An image, a caption or a line that could not be used. detail: whatever helps to find it."""

    id: str
    reason: str
    detail: str = ""
    place: ImageRef | None = field(default=None, compare=False)


@dataclass(frozen=True)
class InFile:
    """A file of a folder."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path)

    def stamp(self) -> str:
        return change_stamp(self.path)

    def look(self) -> tuple[Image.Image, bytes]:
        try:
            with open_regular(self.path) as file:
                data = file.read(LARGEST + 1)
        except OSError:
            raise ImageError(NO_FILE) from None
        if len(data) > LARGEST:
            raise ImageError(TOO_LARGE)
        return decode(data), sha256(data).digest()


@dataclass(frozen=True)
class InZip:
    """A member of a zip archive, which is read and never unpacked."""

    archive: Path
    member: str

    @property
    def name(self) -> str:
        return f"{self.archive}\0{self.member}"

    def stamp(self) -> str:
        return change_stamp(self.archive)

    def look(self) -> tuple[Image.Image, bytes]:
        try:
            with open_regular(self.archive) as file, ZipFile(file) as archive:
                member = archive.getinfo(self.member)
                if (
                    max(member.file_size, member.compress_size) > LARGEST
                ):  # as it says itself; it is not read beyond that
                    raise ImageError(TOO_LARGE)
                if member.compress_type not in METHODS:
                    raise ImageError(NO_MEMBER)
                data = archive.read(member)
        except ImageError:
            raise
        except Exception:  # decompressors of damaged archives raise errors of their own
            raise ImageError(NO_MEMBER) from None
        return decode(data), sha256(data).digest()


@dataclass(frozen=True)
class InTar:
    """Bytes of an uncompressed tar archive, by their place in it."""

    archive: Path
    offset: int
    size: int

    @property
    def name(self) -> str:
        return f"{self.archive}\0{self.offset}"

    def stamp(self) -> str:
        return change_stamp(self.archive)

    def look(self) -> tuple[Image.Image, bytes]:
        if self.size > LARGEST:
            raise ImageError(TOO_LARGE)
        try:
            with open_regular(self.archive) as file:
                file.seek(self.offset)
                data = file.read(self.size)
        except OSError:
            raise ImageError(NO_MEMBER) from None
        if len(data) < self.size:
            raise ImageError("archive is cut short")
        return decode(data), sha256(data).digest()


@dataclass(frozen=True)
class InMemory:
    """Bytes that came with the example. version: what the data set they are of says of itself, if anything."""

    name: str
    data: bytes = field(repr=False)
    version: str = ""

    def stamp(self) -> str:
        return self.version

    def look(self) -> tuple[Image.Image, bytes]:
        return decode(self.data), sha256(self.data).digest()


@dataclass(frozen=True)
class SyntheticImage:
    """A picture that code draws, always the same. kind: picturebook or unseen. code: the hash of that code."""

    kind: str
    seed: int
    number: int
    code: str

    @property
    def name(self) -> str:
        return f"{self.kind} {self.seed} {self.number}"

    def stamp(self) -> str:
        return self.code

    def look(self) -> tuple[Image.Image, bytes]:
        image = self.draw()
        return image, sha256(np.asarray(image).tobytes()).digest()

    def draw(self) -> Image.Image:
        from ..picturebook.captions import draw_scene
        from ..picturebook.draw import draw_picture
        from ..picturebook.snowmen import draw_snowman

        if self.kind == "unseen":
            return draw_snowman(Random(f"unseen {self.seed} {self.number}"))[0]
        scene = draw_scene(Random(f"example {self.seed} {self.number}"), held_out=False)
        return draw_picture(scene, Random(f"picture {self.seed} {self.number}"))


def change_stamp(path: str | Path) -> str:
    """What changes when a file is written to, also one whose time was set back; "" where there is no such file."""
    try:
        told = os.stat(path)
    except OSError:
        return ""
    return f"{told.st_size} {told.st_mtime_ns} {told.st_ctime_ns} {told.st_ino}"
