"""The parts that an image file is made of, counted before it is decoded: decoders take time or memory for each of them.

A progressive JPEG goes over the whole picture once for each of its scans, and a scan may be 12 bytes long. Pillow reads the
segments, chunks, blocks and tags of files one by one, in Python.
"""

import re
import struct

SCANS = 200
"""Scans of a JPEG: progressive ones have about 10, and no encoder is known that writes as many as 100."""
SCANNED = 1 << 31
"""Pixels times scans of a JPEG: 24 scans of the largest picture that Pillow takes, about 8 s."""
SEGMENTS = 5000  # of a JPEG: so many of the largest size are more than a file may have
CHUNKS = (
    1 << 17
)  # of a PNG: encoders write its pixels in pieces of 8 KiB, and a file has 256 MiB at most
OTHER_CHUNKS = 1000  # of a PNG, without pixels: each may unpack to a mebibyte
BLOCKS = 1 << 17  # of a GIF, before its first picture
VALUES = 1 << 18  # of a TIFF's tag: some have one for each row of pixels
MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)
"""A JPEG's marker, not an escaped byte or the mark of a restart, both of which lie within a scan."""
SCAN, END, FRAMES = 0xDA, 0xD9, {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
NUMBERS = {
    3,
    4,
    5,
    6,
    8,
    9,
    10,
    11,
    12,
    13,
    16,
    17,
    18,
}  # types of a TIFF's values that are neither bytes nor text


def excess(data: bytes) -> str:
    """Return why an image file has too many parts to be decoded, or "". Takes time in proportion to the parts it may have."""
    if data[:3] == b"\xff\xd8\xff":
        return _of_jpeg(data)
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return _of_png(data)
    if data[:4] == b"GIF8":
        return _of_gif(data)
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _of_tiff(data)
    return ""


def _of_jpeg(data: bytes) -> str:
    place, scans, pixels = 2, 0, 0
    for _ in range(SEGMENTS):
        match = MARKER.search(data, place)
        if match is None or match[1][0] == END:
            return ""
        kind, place = match[1][0], match.end()
        if kind in FRAMES:
            height, width = (
                int.from_bytes(data[place + 3 : place + 5]),
                int.from_bytes(data[place + 5 : place + 7]),
            )
            pixels = max(pixels, height * width)
        scans += kind == SCAN
        if scans > SCANS or scans * pixels > SCANNED:
            return "JPEG of too many scans"
        place += max(2, int.from_bytes(data[place : place + 2]))
    return f"JPEG of more than {SEGMENTS:,} segments"


def _of_png(data: bytes) -> str:
    place, others = 8, 0
    for _ in range(CHUNKS):
        kind = data[place + 4 : place + 8]
        if len(kind) < 4 or kind == b"IEND":
            return ""
        others += kind not in (b"IDAT", b"fdAT")
        if others > OTHER_CHUNKS:
            return f"PNG of more than {OTHER_CHUNKS:,} chunks without pixels"
        place += 12 + int.from_bytes(data[place : place + 4])
    return f"PNG of more than {CHUNKS:,} chunks"


def _of_gif(data: bytes) -> str:
    palette = data[10] if len(data) > 10 else 0
    place = 13 + (3 << (palette & 7) + 1 if palette & 128 else 0)
    within = False  # an extension, whose blocks end with an empty one
    for _ in range(BLOCKS):
        if place >= len(data) or not within and data[place] in b",;":
            return ""
        if within:
            within = data[place] > 0
            place += 1 + data[place]
        else:
            within = data[place] == ord("!")
            place += 2 if within else 1
    return f"GIF of more than {BLOCKS:,} blocks"


def _of_tiff(data: bytes) -> str:
    order, big = "<" if data[:2] == b"II" else ">", data[2:4].strip(b"\0") == b"+"
    entry = struct.Struct(order + ("HHQ8x" if big else "HHI4x"))
    try:
        (place,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
        (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, place)
        if count > 1 << 16:
            return "TIFF of too many tags"
        for number in range(count):
            _, kind, values = entry.unpack_from(
                data, place + (8 if big else 2) + number * entry.size
            )
            if kind in NUMBERS and values > VALUES:
                return f"TIFF with more than {VALUES:,} values in a tag"
    except (struct.error, OverflowError):
        pass  # cut short: the decoder says so
    return ""
