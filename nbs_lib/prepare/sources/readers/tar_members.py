"""The members of a tar archive, read from its headers in little memory.

`tarfile` believes a header's sizes: it reserves 40 GiB for a name, and recurses once for each of
many long names.

Source: POSIX.1-2017, pax; https://www.gnu.org/software/tar/manual/html_node/Standard.html.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

BLOCK = 512
MAX_NAME = 1 << 20  # bytes of a member that holds the name of the next one
LONG_NAME, LONG_LINK, PAX, PAX_GLOBAL, SPARSE = b"L", b"K", b"x", b"g", b"S"
ABOUT_NEXT = (LONG_NAME, LONG_LINK, PAX, PAX_GLOBAL)
FILES = (b"0", b"\0", b"7", SPARSE)
# Links, devices, folders and pipes, which have no data whatever their size is.
WITHOUT_DATA = (b"1", b"2", b"3", b"4", b"5", b"6")
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
    """Yield an archive's files in order, without links, folders and devices. Errors: TarError."""
    end = file.seek(0, 2)
    position = 0
    # A member of its own may hold the name and the size of the next one.
    long_name = b""
    long_size = None
    while (header := _read_header(file, position)) is not None:
        position += BLOCK
        if header.kind == SPARSE:
            position = _skip_maps(file, position)
        size = header.size
        if long_size is not None and header.kind not in ABOUT_NEXT:
            size = long_size
        if position + size > end:
            raise TarError("cut short")
        if header.kind == LONG_NAME:
            long_name = _read_data(file, position, size).split(b"\0")[0]
        elif header.kind == PAX:
            records = _read_records(_read_data(file, position, size))
            long_name = records.get(b"path", long_name)
            if b"size" in records:
                long_size = _parse_integer(records[b"size"])
        elif header.kind not in ABOUT_NEXT:
            name = long_name or header.name
            if header.kind in FILES and not name.endswith(b"/"):
                yield Member(name.decode("utf-8", "surrogateescape"), position, size)
            long_name = b""
            long_size = None
        if header.kind not in WITHOUT_DATA:
            position += -(-size // BLOCK) * BLOCK


def _read_header(file: BinaryIO, position: int) -> _Header | None:
    """Return the header at a position; None for the block of zeros that ends an archive."""
    file.seek(position)
    block = file.read(BLOCK)
    if len(block) < BLOCK:
        raise TarError("no end")
    if not any(block):
        return None
    # The checksum counts its own field as spaces; old programs summed signed bytes.
    summed = block[:148] + b" " * 8 + block[156:]
    total = sum(summed)
    signed = total - 256 * sum(byte > 127 for byte in summed)
    if _parse_number(block[148:156]) not in (total, signed):
        raise TarError("checksum")
    name = block[:100].split(b"\0")[0]
    prefix = block[345:500].split(b"\0")[0]
    if block[257:263] == b"ustar\0" and prefix:
        name = prefix + b"/" + name
    return _Header(name, _parse_number(block[124:136]), block[156:157])


def _parse_number(field: bytes) -> int:
    """Return a header's number, octal, or of base 256 if its first bit is set; never negative."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:])
    return _parse_integer(field.split(b"\0")[0].strip() or b"0", 8)


def _parse_integer(text: bytes, base: int = 10) -> int:
    # `int` also accepts signs, spaces and underscores, which no archive has.
    if not text.isdigit() or len(text) > 20:
        raise TarError("no number")
    try:
        return int(text, base)
    except ValueError:
        raise TarError("no number") from None


def _read_data(file: BinaryIO, position: int, size: int) -> bytes:
    if size > MAX_NAME:
        raise TarError("name is longer than 1 MiB")
    file.seek(position)
    return file.read(size)


def _read_records(data: bytes) -> dict[bytes, bytes]:
    """Return the records of a pax header: `LENGTH KEYWORD=VALUE\\n`, one after another."""
    records = {}
    position = 0
    while match := RECORD.match(data, position):
        end = position + int(match[1])
        # A length of zero would keep the loop in place for ever.
        if end <= match.end() or end > len(data):
            raise TarError("record")
        records[match[2]] = data[match.end() : end - 1]
        position = end
    return records


def _skip_maps(file: BinaryIO, position: int) -> int:
    """Return where a sparse file's bytes begin."""
    # Each block of its map tells in a byte whether another one follows.
    file.seek(position - BLOCK + 482)
    more = file.read(1)
    while more not in (b"\0", b""):
        file.seek(position + 504)
        more = file.read(1)
        position += BLOCK
    return position
