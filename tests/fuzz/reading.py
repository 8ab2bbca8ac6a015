"""Parts for the fuzzers of sources: images, a secret outside the source, and a full reading."""

import io
import os
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from nbs_lib.config import Prepare
from nbs_lib.prepare.examples import Example, Skipped, SourceError
from nbs_lib.prepare.filters import ImageInfo, unfit_for_work
from nbs_lib.prepare.images import ImageError
from nbs_lib.prepare.sources import SourceOptions, open_source

from . import damaged

SECRET, SECRET_COLOUR = "the secret caption", (7, 77, 177)
MOST = 300  # items of a source that are looked at
LIMITED = Prepare(max_nsfw=0.5)
TEXTS = (
    "", " ", "\0", "a\0b", "\ud800", "\u2028", "\x1b[31m", "猫 🐈", "'\"\\", "{", "[" * 3000,
    "-1e999", "NaN", "x" * 5000, "../outside/secret.png", "/etc/passwd", "..", ".",
    "a" * 300 + ".png", "sub/../a.png", "./a.png", "A.PNG",
)  # fmt: skip


def stored(kind: str = "PNG", colour=(200, 30, 30), size=(16, 12), **options) -> bytes:
    Image.new("RGB", size, colour).save(file := io.BytesIO(), kind, **options)
    return file.getvalue()


def plant(outside: Path):
    """Write an image and captions that nothing may read."""
    outside.mkdir()
    (outside / "secret.png").write_bytes(stored(colour=SECRET_COLOUR))
    (outside / "secret.txt").write_text(SECRET)


class Images:
    """Files of images, good and bad."""

    def __init__(self):
        self.good = stored()
        jpeg = stored("JPEG", progressive=True)
        scan = jpeg[jpeg.rindex(b"\xff\xda") : -2]
        chunk = b"\0\0\0\0teSt" + bytes(4)
        self.all = [
            self.good, stored("GIF"), stored("WEBP"), stored("TIFF"), stored("BMP"),
            jpeg, b"", b"\xff\xd8\xff",
            jpeg[:-2] + scan * 300 + b"\xff\xd9", self.good[:33] + chunk * 3000 + self.good[33:],
        ]  # fmt: skip

    def any(self, rng: Random) -> bytes:
        image = rng.choice(self.all)
        return damaged(rng, image) if rng.random() < 0.5 else image


def read(source: Path | str, **asked) -> tuple[str, list[Example | Skipped]]:
    """Read a source and its images to the end.

    Return a word for the outcome, and the items without their images.
    """
    try:
        opened = open_source(str(source), SourceOptions(**asked))
    except SourceError as fault:
        check_text(str(fault))
        return "refused", []
    assert (total := opened.total()) is None or total >= 0
    opened.stamp()
    items = []
    for item in islice(opened, MOST):
        check(item)
        items.append(replace(item, image=None))
    skipped = sum(isinstance(item, Skipped) for item in items)
    return "partly" if 0 < skipped < len(items) else "skipped" if skipped else "accepted", items


def check(item: Example | Skipped):
    """Check an item of a source. Errors: AssertionError, and any error of reading its image."""
    check_text(item.id)
    if isinstance(item, Example):
        assert isinstance(item.caption, str) and "\n" not in item.caption
        unfit_for_work(item, ImageInfo(), LIMITED)
        place = item.image
        texts = (item.caption,)
    else:
        assert isinstance(item, Skipped)
        check_text(item.reason)
        place, texts = item.image, (item.detail,)
    for text in texts:
        text.encode()
        assert SECRET not in text
    with suppress(ImageError):
        if place is not None:
            place.stamp()
            image, digest = place.load()
            assert len(digest) == 32
            assert (
                SECRET_COLOUR
                not in np.asarray(image.convert("RGB").resize((1, 1))).reshape(-1, 3).tolist()
            )
            assert image.convert("RGB").getpixel((0, 0)) != SECRET_COLOUR


def check_text(text: str):
    assert text and len(text) < 1 << 21
    text.encode()


def put(path: Path, rng: Random, data: bytes, secret: Path):
    """Write a file, or sometimes a link to `secret`, a pipe, a folder or nothing instead."""
    path.parent.mkdir(exist_ok=True)
    with suppress(FileNotFoundError):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    match rng.randrange(40):
        case 0:
            path.symlink_to(
                rng.choice(
                    (
                        secret,
                        os.path.relpath(secret, path.parent),
                        "/dev/zero",
                        path.name,
                        "not there",
                    )
                )
            )
        case 1:
            os.mkfifo(path)
        case 2:
            path.mkdir()
        case 3:
            pass
        case _:
            path.write_bytes(data)
