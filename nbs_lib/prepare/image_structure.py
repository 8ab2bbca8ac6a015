"""The number of parts of an image file, counted before it is decoded.

Decoders take time or memory for each part. A progressive JPEG goes over the whole picture once for
each of its scans, and a scan may be 12 bytes long. Pillow reads the segments, chunks, blocks and
tags of files one by one, in Python.
"""

import re
import struct

# Scans of a JPEG. Progressive ones have about 10; no known encoder writes as many as 100.
SCANS = 200
# Pixels times scans of a JPEG: 24 scans of the largest picture that Pillow takes, about 8 s.
SCANNED = 1 << 31
SEGMENTS = 5000  # of a JPEG: so many of the largest size are more than a file may have
CHUNKS = 1 << 17  # of a PNG: encoders write 8 KiB in each, and a file has 256 MiB at most
OTHER_CHUNKS = 1000  # of a PNG, without pixels: each may unpack to a mebibyte
BLOCKS = 1 << 17  # of a GIF, before its first picture
VALUES = 1 << 18  # of a TIFF's tag: some have one for each row of pixels
# A JPEG's marker. Escaped bytes and restart marks, both within a scan, are none.
MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)
SCAN = 0xDA
END = 0xD9
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
# Types of a TIFF's values that are neither bytes nor text.
NUMBERS = {3, 4, 5, 6, *range(8, 14), 16, 17, 18}


def find_excess(data: bytes) -> str:
    """Return why an image file has too many parts to be decoded, or "".

    The time it takes is proportional to the parts that a file may have.
    """
    if data[:3] == b"\xff\xd8\xff":
        return _check_jpeg(data)
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return _check_png(data)
    if data[:4] == b"GIF8":
        return _check_gif(data)
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _check_tiff(data)
    return ""


def _check_jpeg(data: bytes) -> str:
    position = 2
    scans = 0
    pixels = 0
    for _ in range(SEGMENTS):
        match = MARKER.search(data, position)
        if match is None or match[1][0] == END:
            return ""
        kind = match[1][0]
        position = match.end()
        if kind in FRAMES:
            height = _integer(data, position + 3, 2)
            width = _integer(data, position + 5, 2)
            pixels = max(pixels, height * width)
        scans += kind == SCAN
        if scans > SCANS or scans * pixels > SCANNED:
            return "JPEG of too many scans"
        # A length counts its own two bytes; a smaller one would stay in place for ever.
        position += max(2, _integer(data, position, 2))
    return f"JPEG of more than {SEGMENTS:,} segments"


def _check_png(data: bytes) -> str:
    position = 8
    others = 0
    for _ in range(CHUNKS):
        kind = data[position + 4 : position + 8]
        if len(kind) < 4 or kind == b"IEND":
            return ""
        others += kind not in (b"IDAT", b"fdAT")
        if others > OTHER_CHUNKS:
            return f"PNG of more than {OTHER_CHUNKS:,} chunks without pixels"
        # Twelve bytes are the length, the kind and the checksum.
        position += 12 + _integer(data, position, 4)
    return f"PNG of more than {CHUNKS:,} chunks"


def _check_gif(data: bytes) -> str:
    flags = data[10] if len(data) > 10 else 0
    position = 13
    if flags & 128:  # a global palette follows, of three bytes for each colour
        position += 3 << (flags & 7) + 1
    within = False  # an extension, whose blocks end with an empty one
    for _ in range(BLOCKS):
        if position >= len(data) or not within and data[position] in b",;":
            return ""
        if within:
            within = data[position] > 0
            position += 1 + data[position]
        else:
            within = data[position] == ord("!")
            position += 2 if within else 1
    return f"GIF of more than {BLOCKS:,} blocks"


def _check_tiff(data: bytes) -> str:
    order = "<" if data[:2] == b"II" else ">"
    # BigTIFF has numbers of 64 bits where TIFF has 32 or 16.
    big = data[2:4].strip(b"\0") == b"+"
    offset = struct.Struct(order + ("8xQ" if big else "4xI"))
    number = struct.Struct(order + ("Q" if big else "H"))
    entry = struct.Struct(order + ("2xHQ8x" if big else "2xHI4x"))
    try:
        (position,) = offset.unpack_from(data)
        (count,) = number.unpack_from(data, position)
        if count > 1 << 16:
            return "TIFF of too many tags"
        position += number.size
        for _ in range(count):
            kind, values = entry.unpack_from(data, position)
            position += entry.size
            if kind in NUMBERS and values > VALUES:
                return f"TIFF with more than {VALUES:,} values in a tag"
    except (struct.error, OverflowError):
        pass  # the file is cut short, which its decoder reports
    return ""


def _integer(data: bytes, position: int, size: int) -> int:
    return int.from_bytes(data[position : position + size])
