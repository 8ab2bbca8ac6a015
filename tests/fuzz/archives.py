"""Archives of images and captions: tar, and DiffusionDB's zips with their table."""

import io
import json
import shutil
import tarfile
import zipfile
from pathlib import Path
from random import Random

import pyarrow
import pyarrow.parquet

from nbs_lib.prepare.examples import Example

from . import damaged
from .reading import SECRET, SECRET_COLOUR, TEXTS, Images, plant, put, read, stored
from .tables import text_array

GOOD = {"1": "the good image 1", "2": "the good image 2"}
SIZES = (0, 1, 511, 512, 513, 1 << 20, (1 << 20) + 1, 40 << 30, 1 << 63, 1 << 80, (1 << 88) - 1)
SCORES = (
    0.1,
    0.9,
    2.0,
    "2.0",
    "0.1",
    "",
    "high",
    b"\xff",
    [0.1],
    [2.0, 0.1],
    [],
    None,
    -1.0,
    float("nan"),
    True,
    10**15,
)
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


class Fuzzer:
    def __init__(self, folder: Path):
        self.images, self.outside = Images(), folder / "outside"
        plant(self.outside)
        secret = stored(colour=SECRET_COLOUR)
        (self.outside / "secret.tar").write_bytes(
            member("1.png", secret) + member("1.txt", SECRET.encode()) + bytes(1024)
        )
        self.shards, self.database = folder / "shärds", folder / "database"
        for path in (self.shards, self.database, self.database / "images"):
            path.mkdir()
        with zipfile.ZipFile(self.outside / "secret.zip", "w") as archive:
            archive.writestr("1.png", secret)
            archive.writestr("part-000001.json", json.dumps({"1.png": {"p": SECRET}}))
        rows = {
            "image_name": ["1.png"],
            "prompt": [SECRET],
            "part_id": [1],
            "image_nsfw": [0.1],
            "prompt_nsfw": [0.1],
        }
        pyarrow.parquet.write_table(pyarrow.table(rows), self.outside / "secret.parquet")

    def case(self, rng: Random) -> str:
        return self._tar(rng) if rng.random() < 0.5 else self._database(rng)

    def _tar(self, rng: Random) -> str:
        parts, sure = self._members(rng)
        data = b"".join(parts) + bytes(rng.choice((1024, 1024, 512, 0)))
        if rng.random() < 0.4:
            data, sure = damaged(rng, data), False
        path = self.shards / "a.tar"
        put(path, rng, data, self.outside / "secret.tar")
        whole = path.is_file() and not path.is_symlink()
        source = (
            path
            if whole and rng.random() < 0.3
            else rng.choice((self.shards, self.shards / "*.tar"))
        )
        outcome, items = read(source)
        if sure and whole:
            captions = {item.caption for item in items if isinstance(item, Example)}
            assert captions >= set(GOOD.values()), captions
        self._remove(path)
        return f"tar {outcome}"

    def _members(self, rng: Random) -> tuple[list[bytes], bool]:
        """The members of an archive: good examples, then what may end it."""
        parts = []
        for name, text in GOOD.items():
            parts += [member(f"{name}.png", self.images.good), member(f"{name}.txt", text.encode())]
            if rng.random() < 0.3:
                parts.append(
                    member(f"x{name}.jpg", self.images.any(rng))
                    + member(f"x{name}.json", self._json(rng))
                )
        for _ in range(rng.randrange(3)):
            parts.append(self._hostile(rng))
        return parts, True

    def _hostile(self, rng: Random) -> bytes:
        name = rng.choice(TEXTS) + rng.choice((".png", ".txt", ".json", ""))
        match rng.randrange(8):
            case 0:
                return header(name, rng.choice(SIZES), kind=rng.choice(b"0LKxgS\x007123456VZ\xff"))
            case 1:
                many = rng.choice((1, 3, 3000 if rng.random() < 0.05 else 30))
                return member(
                    "././@LongLink", name.encode("utf-8", "replace"), kind=rng.choice(b"LKxg")
                ) * many + member("z.png", self.images.good)
            case 2:
                records = rng.choice(
                    (
                        "size=99999999999999999999",
                        "size=-1",
                        "path=" + name,
                        "size=",
                        "GNU.sparse.major=1",
                    )
                )
                length = rng.choice((len(records) + 4, 0, 9, 10**9))
                text = f"{length} {records}\n".encode("utf-8", "replace")
                return member(
                    "PaxHeader", rng.choice((text, b"9" * 100_000)), kind=ord("x")
                ) + member("z.png", self.images.good)
            case 3:
                link = bytearray(
                    header(
                        "link.png",
                        0,
                        kind=rng.choice(b"12"),
                        link=rng.choice(("/etc/passwd", "../outside")),
                    )
                )
                return bytes(link) + member("link.txt", b"a link")
            case 4:
                return member("y.png", self.images.any(rng)) + member("y.json", self._json(rng))
            case 5:
                return member(
                    "w.txt",
                    rng.choice(
                        (b"\xff", b"a\0b", b"x" * ((1 << 20) + 1) if rng.random() < 0.1 else b"")
                    ),
                )
            case 6:
                sparse = bytearray(header("s.png", 12, kind=ord("S"), more=1))
                return (
                    bytes(sparse)
                    + (bytes(504) + b"\1" + bytes(7)) * rng.choice((0, 1, 50))
                    + bytes(512)
                )
            case _:
                return rng.randbytes(rng.choice((1, 511, 512, 1024)))

    def _json(self, rng: Random) -> bytes:
        plain = (
            b"{",
            b"[" * 50_000,
            b"null",
            b"[1]",
            b"\xff",
            b'{"text": 3}',
            b'{"caption": "\xff"}',
            b'{"text": null}',
        )
        return rng.choice((*plain, json.dumps({"text": rng.choice(TEXTS)}).encode()))

    def _database(self, rng: Random) -> str:
        data, told = self._zip(rng)
        sure = rng.random() < 0.5
        if not sure:
            data = damaged(rng, data)
        archive, table = (
            self.database / "images" / "part-000001.zip",
            self.database / "metadata.parquet",
        )
        put(archive, rng, data, self.outside / "secret.zip")
        rows, named = self._metadata(rng)
        put(table, rng, rows, self.outside / "secret.parquet")
        outcome, items = read(self.database, subset=rng.choice(("", "1", "2")))
        if (
            sure
            and archive.is_file()
            and not archive.is_symlink()
            and table.exists()
            and "refused" not in outcome
        ):
            captions = {item.caption for item in items if isinstance(item, Example)}
            assert not told or captions >= set(GOOD.values()), captions
        self._remove(archive)
        self._remove(table)
        return f"database {outcome}"

    def _zip(self, rng: Random) -> tuple[bytes, bool]:
        """An archive, and whether it has the prompts."""
        method = rng.choice(METHODS) if rng.random() < 0.2 else zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(file := io.BytesIO(), "w", method) as archive:
            for name in GOOD:
                archive.writestr(f"{name}.png", self.images.good)
            for _ in range(rng.randrange(3)):
                name = rng.choice((*TEXTS, "1.png", "3.png")).replace("\ud800", "?").lstrip("\0")
                archive.writestr(f"{name}.png", self.images.any(rng))
            good = json.dumps({f"{name}.png": {"p": text} for name, text in GOOD.items()}).encode()
            told = rng.random() < 0.7
            name = rng.choice(("part-000001.json", "../x.json")) if told else "part-000001.json"
            archive.writestr(name, good if told else self._json(rng))
        return file.getvalue(), told and method in METHODS[:2]

    def _metadata(self, rng: Random) -> tuple[bytes, bool]:
        names = [rng.choice(("1.png", "2.png", "3.png", b"\xff.png", "")) for _ in range(4)]
        rows = {
            "image_name": text_array(names),
            "part_id": pyarrow.array([1, 1, 1, rng.choice((2, None))]),
        }
        rows["prompt"] = text_array([rng.choice((*TEXTS, b"\xff", "a prompt")) for _ in range(4)])
        for name in ("image_nsfw", "prompt_nsfw"):
            rows[name] = scores(rng)
        rows["seed"] = pyarrow.array([rng.randrange(2**63)] * 4).view(
            rng.choice((pyarrow.int64(), pyarrow.timestamp("us")))
        )
        match rng.randrange(8):
            case 0:
                rows["image_name"] = pyarrow.array([["1.png"]] * 4)
            case 1:
                rows["part_id"] = rng.choice(
                    (pyarrow.array(["1"] * 4), pyarrow.array([1.0] * 4), pyarrow.array([[1]] * 4))
                )
            case 2:
                del rows[rng.choice(list(rows))]
            case 3:
                rows["sampler"] = text_array(["x" * 5000] * 4)
        columns = list(rows.items()) + (
            [rng.choice(list(rows.items()))] if rng.random() < 0.05 else []
        )
        table = pyarrow.Table.from_arrays(
            [column for _, column in columns], names=[name for name, _ in columns]
        )
        pyarrow.parquet.write_table(
            table, file := io.BytesIO(), row_group_size=rng.choice((1, 100))
        )
        data = file.getvalue()
        return (damaged(rng, data), False) if rng.random() < 0.3 else (data, True)

    def _remove(self, path: Path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def scores(rng: Random) -> pyarrow.Array:
    """A column of scores of one type, some of them odd."""
    kind = type(first := rng.choice(SCORES))
    same = [first, *(rng.choice([each for each in SCORES if type(each) is kind]) for _ in range(3))]
    return text_array(same) if kind in (str, bytes) else pyarrow.array(same)


def member(name: str, data: bytes, kind: int = ord("0")) -> bytes:
    return header(name, len(data), kind) + data + bytes(-len(data) % 512)


def header(name: str, size: int, kind: int, link: str = "", more: int = 0) -> bytes:
    """A tar header with a right checksum. more: whether a sparse file's map goes on."""
    info = tarfile.TarInfo("x")
    info.linkname = link
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    raw = name.encode("utf-8", "surrogatepass")[:100]
    block[:100] = raw + bytes(100 - len(raw))
    block[124:136] = f"{size:011o}\0".encode() if size < 8**11 else b"\x80" + size.to_bytes(11)
    block[156], block[482] = kind, more
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block)
