"""A corpus of everything that a folder, an archive or a table may hold and should not.

Nothing of it ends a run or leaves its folder, and every good example among it is kept.
"""

import io
import json
import os
import struct
import tarfile
import zlib
from collections import Counter
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image, ImageCms

from nbs_lib.prepare import prepare
from nbs_lib.prepare.examples import Example, Skipped
from nbs_lib.prepare.sources import SourceOptions, open_source


def stored(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    image.save(file := io.BytesIO(), kind, **options)
    return file.getvalue()


def picture(mode: str = "RGB", size=(48, 40)) -> Image.Image:
    values = np.random.default_rng(len(mode)).integers(
        0, 255, (size[1], size[0], 3), dtype=np.uint8
    )
    return Image.fromarray(values).convert(mode)


def bomb() -> bytes:
    """A PNG of a few kilobytes that says it has 60,000 × 60,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes(1 << 20)))
        + chunk(b"IEND", b"")
    )


def exif(value: int) -> Image.Exif:
    metadata = Image.Exif()
    metadata[0x0112] = value
    return metadata


def good() -> dict[str, bytes]:
    """Return unusual files that can be used."""
    rgb, deep = picture(), Image.fromarray(np.arange(2400, dtype=np.uint16).reshape(40, 60) * 27)
    palette = picture("P")
    palette.info["transparency"] = 3
    frames = [picture(), picture().rotate(90), picture().rotate(180)]
    animation = {"save_all": True, "append_images": frames[1:]}
    floats = Image.fromarray(np.linspace(0, 1, 400, dtype=np.float32).reshape(20, 20))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    items = {
        "plain.png": stored(rgb),
        "one pixel.png": stored(Image.new("RGB", (1, 1))),
        "very wide.png": stored(Image.new("RGB", (20_000, 1))),
        "very tall.png": stored(Image.new("L", (1, 20_000))),
        "cmyk.jpg": stored(picture("CMYK"), "JPEG"),
        "cmyk.tif": stored(picture("CMYK"), "TIFF"),
        "grey.png": stored(picture("L")),
        "grey and alpha.png": stored(picture("LA")),
        "alpha.png": stored(picture("RGBA")),
        "palette.gif": stored(picture("P"), "GIF"),
        "palette and alpha.png": stored(palette, transparency=3),
        "bilevel.png": stored(picture("1")),
        "16 bits.png": stored(deep),
        "16 bits.tif": stored(deep, "TIFF"),
        "floats.tiff": stored(floats, "TIFF"),
        "lab.tif": stored(picture("LAB"), "TIFF"),
        "ycbcr.jpg": stored(picture("YCbCr"), "JPEG"),
        "animated.gif": stored(frames[0].convert("P"), "GIF", **animation),
        "animated.webp": stored(frames[0], "WEBP", save_all=True, append_images=frames[1:]),
        "several pages.tif": stored(frames[0], "TIFF", save_all=True, append_images=frames[1:]),
        "wrong ending.jpg": stored(rgb),
        "other wrong ending.png": stored(rgb, "JPEG"),
        "LOUD.PNG": stored(rgb),
        "turned.jpg": stored(rgb, "JPEG", exif=exif(6)),
        "exif of another world.jpg": stored(rgb, "JPEG", exif=exif(77)),
        "exif that is no exif.jpg": stored(rgb, "JPEG", exif=b"Exif\0\0" + b"\xff" * 40),
        "profile.jpg": stored(rgb, "JPEG", icc_profile=srgb.tobytes()),
        "profile that is none.png": stored(rgb, icc_profile=b"no profile"),
        "bitmap.bmp": stored(rgb, "BMP"),
        "portable.ppm": stored(rgb, "PPM"),
        "webp.webp": stored(rgb, "WEBP"),
        "text after the end.png": stored(rgb) + b"<script>alert(1)</script>",
        "猫 – ünïcode 🐈.png": stored(rgb),
        "n" * 240 + ".png": stored(rgb),
        "new\nline and \ttab.png": stored(rgb),
        "-rf.png": stored(rgb),
        "$(touch x) `y` %s {}.png": stored(rgb),
        "dots..in..png": stored(rgb),
    }  # fmt: skip
    return items


def bad() -> dict[str, tuple[bytes, str]]:
    """Return files that cannot be used, each with the reason."""
    png, jpeg, gif, tiff = (
        stored(picture()),
        stored(picture(), "JPEG"),
        stored(picture("P"), "GIF"),
        stored(picture(), "TIFF"),
    )
    cut, unknown = "image is truncated or damaged", "not an image of a known format"
    items = {
        f"png cut to {share} %.png": (png[: len(png) * share // 100], cut) for share in (30, 60, 95)
    }
    items |= {
        f"jpeg cut to {share} %.jpg": (jpeg[: len(jpeg) * share // 100], cut) for share in (60, 90)
    }
    items["gif cut.gif"] = gif[: len(gif) // 2], cut
    items["tiff cut.tif"] = tiff[: len(tiff) // 2], cut
    flipped = bytearray(png)
    flipped[len(png) // 2] ^= 0xFF
    nan = stored(Image.fromarray(np.full((20, 20), np.nan, dtype=np.float32)), "TIFF")
    return items | {
        "a bit flipped.png": (bytes(flipped), cut),
        "head alone.png": (png[:8], unknown),
        "nothing.png": (b"", "image is empty (zero bytes)"),
        "zeros.png": (bytes(5000), unknown),
        "noise.jpg": (np.random.default_rng(0).bytes(5000), unknown),
        "page.png": (b"<html><body>404</body></html>", unknown),
        "program.jpg": (b"MZ" + bytes(500), unknown),
        "pickle.png": (b"\x80\x04\x95.cos\nsystem\n", unknown),
        "vector.webp": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", unknown),
        "a program of PostScript.png": (
            stored(picture(), "EPS"),
            unknown,
        ),  # Pillow would have Ghostscript run it
        "bomb.png": (bomb(), "image is beyond Pillow's limit of 89,478,485 pixels"),
        "no numbers.tiff": (nan, "image of mode F has values outside 0 to 1"),
    }


@pytest.fixture
def corpus(tmp_path) -> tuple[Path, set[str], dict[str, str]]:
    """A folder, the names to keep, and the names to drop with their reasons."""
    folder, outside = tmp_path / "cörpus", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    keep, drop = set(), {}
    for name, data in good().items():
        (folder / name).write_bytes(data)
        (folder / f"{os.path.splitext(name)[0]}.txt").write_text(f"about {len(name)}")
        keep.add(name)
    for name, (data, reason) in bad().items():
        (folder / name).write_bytes(data)
        (folder / f"{os.path.splitext(name)[0]}.txt").write_text("bad")
        drop[name] = reason
    texts = {
        "empty caption": (b" \n\t", "caption is empty"),
        "latin caption": ("Müller".encode("latin-1"), "caption is not UTF-8 text"),
        "utf-16 caption": ("a cat".encode("utf-16"), "caption is not UTF-8 text"),
        "huge caption": (b"word " * 300_000, "caption is longer than 1 MiB"),
        "long caption": (b"word " * 20_000, None),
        "nul caption": (b"a\0cat", None),
        "marked caption": ("a cat".encode("utf-8-sig"), None),
        "script caption": (b"<script>alert(1)</script>", None),
    }
    for name, (text, reason) in texts.items():
        (folder / f"{name}.png").write_bytes(stored(picture()))
        (folder / f"{name}.txt").write_bytes(text)
        if reason:
            drop[f"{name}.png"] = reason
        else:
            keep.add(f"{name}.png")
    (outside / "secret.png").write_bytes(stored(picture()))
    for name, target, reason in (
        ("leads out.png", outside / "secret.png", "link that leads out of the folder"),
        ("leads up.png", "../outside/secret.png", "link that leads out of the folder"),
        ("to itself.png", "to itself.png", "link that leads nowhere"),
        ("to nothing.png", "not there.png", "link that leads nowhere"),
        ("device.png", "/dev/zero", "link that leads out of the folder"),
    ):
        (folder / name).symlink_to(target)
        (folder / name).with_suffix(".txt").write_text("a link")
        drop[name] = reason
    os.mkfifo(folder / "pipe.png")
    (folder / "pipe.txt").write_text("would wait for ever")
    (folder / "folder.png").mkdir()
    drop |= {
        "pipe.png": "not a file",
        "without caption.png": "image without caption",
        "alone.txt": "caption without image",
    }
    (folder / "without caption.png").write_bytes(stored(picture()))
    (folder / "alone.txt").write_text("nobody")
    named = [("../outside/secret.png", "x"), ("plain.png", None), ("gone.png", "x")]
    lines = [{"file_name": name, "text": text} for name, text in named]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n{broken\n")
    drop |= {
        "metadata.jsonl, line 1": "names a file outside the folder",
        "metadata.jsonl, line 2": "lacks file_name or text",
    }
    drop |= {
        "metadata.jsonl, line 3": "names a file that is not there",
        "metadata.jsonl, line 4": "is not JSON",
    }
    (folder / "metadata.parquet").write_bytes(b"PAR1" + bytes(40) + b"PAR1")
    drop["metadata.parquet"] = "table is truncated or damaged"
    return folder, keep, drop


def test_a_hostile_folder_ends_nothing_and_hides_nothing(corpus, config):
    folder, keep, drop = corpus
    assert len(keep) + len(drop) > 60
    before = {path for path in folder.parent.rglob("*")}
    prepared = prepare(config(source=str(folder), drop_duplicates=False))
    assert set(prepared.cache.ids) == keep
    rows = pyarrow.parquet.read_table(
        prepared.run.folder / "prepare" / "dropped.parquet"
    ).to_pylist()
    assert {row["id"]: row["reason"] for row in rows} == drop and len(rows) == len(drop)
    assert prepared.dropped == dict(Counter(drop.values()))
    new = {path for path in folder.parent.rglob("*")} - before
    assert all(path.is_relative_to(prepared.run.folder.parent) for path in new), (
        "nothing was written beside the run"
    )
    assert prepare(config(source=str(folder), drop_duplicates=False)).built.decoded == 0


def test_good_examples_of_hostile_archives_and_tables_are_kept(tmp_path):
    shards = tmp_path / "shards"
    shards.mkdir()
    with tarfile.open(shards / "a.tar", "w") as tar:
        image = stored(picture())
        for name, data in {
            "1.png": image,
            "1.txt": b"good",
            "/abs.png": image,
            "/abs.txt": b"x",
        }.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    content = (shards / "a.tar").read_bytes()
    (shards / "b.tar").write_bytes(content[:700])
    (shards / "c.tar").write_bytes(b"")
    (shards / "d.tar").write_bytes(np.random.default_rng(0).bytes(4000))
    items = list(open_source(str(shards), SourceOptions()))
    assert [item.caption for item in items if isinstance(item, Example)][:1] == ["good"]
    assert {item.id for item in items if isinstance(item, Skipped)} >= {"b.tar", "d.tar"}
    database = tmp_path / "diffusiondb"
    (database / "images").mkdir(parents=True)
    with ZipFile(database / "images" / "part-000001.zip", "w") as archive:
        archive.writestr("good.png", stored(picture()))
        archive.writestr("../../../climbs.png", stored(picture()))
        archive.writestr("bomb.png", bomb())
        archive.writestr(
            "part-000001.json", json.dumps({"good.png": {"p": "good"}, "bomb.png": {"p": 7}})
        )
    (database / "metadata.parquet").write_bytes(b"")
    items = list(open_source(str(database), SourceOptions()))
    assert [item.caption for item in items if isinstance(item, Example)] == ["good"]
    assert sorted(item.reason for item in items if isinstance(item, Skipped)) == [
        "image without prompt", "names a file outside the archive",
        "scores cannot be read",
    ]  # fmt: skip
