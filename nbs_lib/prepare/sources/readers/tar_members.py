"""The members of a tar archive, read from its headers in little memory.

`tarfile` believes a header's sizes: it reserves 40 GiB for a name, and recurses once for each of many long names.

Source: POSIX.1-2017, pax; https://www.gnu.org/software/tar/manual/html_node/Standard.html.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

BLOCK = 512
MOST = 1 << 20  # bytes of a member that holds the name of the next one
LONG_NAME, LONG_LINK, PAX, PAX_OF_ALL, SPARSE = b"L", b"K", b"x", b"g", b"S"
ABOUT_NEXT = (LONG_NAME, LONG_LINK, PAX, PAX_OF_ALL)
FILES = (b"0", b"\0", b"7", SPARSE)
WITHOUT_DATA = (
    b"1",
    b"2",
    b"3",
    b"4",
    b"5",
    b"6",
)  # links, devices, folders and pipes, whatever their size says
RECORD = re.compile(rb"(\d{1,20}) ([^=]*)=")  # of a pax header: its length, its keyword


class TarError(ValueError):
    """An archive that is cut short or damaged."""


@dataclass(frozen=True)
class Member:
    """A file of an archive. offset, size: of its bytes in the archive."""

    name: str
    offset: int
    size: int


@dataclass
class _Header:
    name: bytes
    size: int
    kind: bytes


def members(file: BinaryIO) -> Iterator[Member]:
    """Yield an archive's files in order; links, folders and devices are passed over. Errors: TarError."""
    end = file.seek(0, 2)
    place, name, size = (
        0,
        b"",
        None,
    )  # the name and the size that a member of their own gave to the next one
    while (header := _read_header(file, place)) is not None:
        place += BLOCK
        if header.kind == SPARSE:
            place = _after_maps(file, place)
        length = header.size if size is None or header.kind in ABOUT_NEXT else size
        if place + length > end:
            raise TarError("cut short")
        if header.kind == LONG_NAME:
            name = _data(file, place, length).split(b"\0")[0]
        elif header.kind == PAX:
            records = _records(_data(file, place, length))
            name, size = (
                records.get(b"path", name),
                _whole(records[b"size"]) if b"size" in records else size,
            )
        elif header.kind not in ABOUT_NEXT:
            if header.kind in FILES and not (name or header.name).endswith(b"/"):
                yield Member(
                    (name or header.name).decode("utf-8", "surrogateescape"), place, length
                )
            name, size = b"", None
        if header.kind not in WITHOUT_DATA:
            place += -(-length // BLOCK) * BLOCK


def _read_header(file: BinaryIO, place: int) -> _Header | None:
    """The header at a place; None for the block of zeros that ends an archive."""
    file.seek(place)
    block = file.read(BLOCK)
    if len(block) < BLOCK:
        raise TarError("no end")
    if not any(block):
        return None
    total = sum(block) - sum(block[148:156]) + 8 * ord(" ")
    signed = total - 256 * sum(byte > 127 for byte in block[:148] + block[156:])
    if _number(block[148:156]) not in (total, signed):
        raise TarError("checksum")
    name, prefix = block[:100].split(b"\0")[0], block[345:500].split(b"\0")[0]
    if block[257:263] == b"ustar\0" and prefix:
        name = prefix + b"/" + name
    return _Header(name, _number(block[124:136]), block[156:157])


def _number(field: bytes) -> int:
    """A number of a header, which is not negative: octal, or of base 256 where its first bit is set."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:])
    return _whole(field.split(b"\0")[0].strip() or b"0", 8)


def _whole(text: bytes, base: int = 10) -> int:
    if not text.isdigit() or len(text) > 20:
        raise TarError("no number")
    try:
        return int(text, base)
    except ValueError:
        raise TarError("no number") from None


def _data(file: BinaryIO, place: int, size: int) -> bytes:
    if size > MOST:
        raise TarError("name is longer than 1 MiB")
    file.seek(place)
    return file.read(size)


def _records(data: bytes) -> dict[bytes, bytes]:
    """The records of a pax header: `LENGTH KEYWORD=VALUE\\n`, one after another."""
    found, place = {}, 0
    while match := RECORD.match(data, place):
        end = place + int(match[1])
        if end <= match.end() or end > len(data):
            raise TarError("record")
        found[match[2]] = data[match.end() : end - 1]
        place = end
    return found


def _after_maps(file: BinaryIO, place: int) -> int:
    """Where a sparse file's bytes begin: each block of its map says whether another follows."""
    file.seek(place - BLOCK + 482)
    more = file.read(1)
    while more not in (b"\0", b""):
        file.seek(place + 504)
        more = file.read(1)
        place += BLOCK
    return place
