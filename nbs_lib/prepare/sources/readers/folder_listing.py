"""What lies in a folder and its subfolders, also in those that cannot be read or are reached by a link."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Listing:
    """One folder, without what is hidden. Names are in order.

    links: names of links that lead to folders, which nothing follows; readable: whether the folder could be listed.
    """

    path: Path
    folders: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    readable: bool = True


def walk(folder: Path) -> Iterator[Listing]:
    """Yield a folder and everything below it, each folder before its own; `os.walk` recurses and hides what it cannot read."""
    waiting = [folder]
    while waiting:
        listing = _list(waiting.pop())
        yield listing
        waiting += [listing.path / name for name in reversed(listing.folders)]


def _list(path: Path) -> Listing:
    listing = Listing(path)
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    _kind(listing, entry).append(entry.name)
    except OSError:
        return Listing(path, readable=False)
    for names in (listing.folders, listing.links, listing.files):
        names.sort()
    return listing


def _kind(listing: Listing, entry: os.DirEntry) -> list[str]:
    if entry.is_symlink():
        return listing.links if os.path.isdir(entry.path) else listing.files
    return listing.folders if entry.is_dir(follow_symlinks=False) else listing.files
