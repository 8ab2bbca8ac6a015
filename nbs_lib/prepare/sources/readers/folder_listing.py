"""The content of a folder and its subfolders, also of those that are unreadable or links."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

# Files with other endings are not looked at.
IMAGE_ENDINGS = (
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


@dataclass
class Listing:
    """The content of one folder without what is hidden. Names are sorted.

    links: names of links that lead to folders, which are not followed.
    readable: whether the folder could be listed.
    """

    path: Path
    folders: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    readable: bool = True

    def images(self) -> list[str]:
        """Return the names of files that should be images."""
        return [name for name in self.files if name.lower().endswith(IMAGE_ENDINGS)]


def walk(folder: Path) -> Iterator[Listing]:
    """Yield a folder and everything below it, each folder before its subfolders."""
    # `os.walk` hides folders that it cannot read, and older versions of it recurse.
    waiting = [folder]
    while waiting:
        listing = _list_folder(waiting.pop())
        yield listing
        waiting += [listing.path / name for name in reversed(listing.folders)]


def _list_folder(path: Path) -> Listing:
    listing = Listing(path)
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                # Hidden files are thumbnails, checkpoints of notebooks and the like.
                if not entry.name.startswith("."):
                    _names_of_kind(listing, entry).append(entry.name)
    except OSError:
        return Listing(path, readable=False)
    # A disk's own order differs between machines, and the order is part of a cache's key.
    for names in (listing.folders, listing.links, listing.files):
        names.sort()
    return listing


def _names_of_kind(listing: Listing, entry: os.DirEntry) -> list[str]:
    if entry.is_symlink():
        return listing.links if os.path.isdir(entry.path) else listing.files
    return listing.folders if entry.is_dir(follow_symlinks=False) else listing.files
