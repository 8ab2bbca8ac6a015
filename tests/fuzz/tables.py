"""Tables of images and captions, alone and in a folder (jsonl, csv, parquet); saved data sets."""

import csv
import io
import json
import shutil
from functools import cache
from pathlib import Path
from random import Random

import datasets
import pyarrow
import pyarrow.parquet

from nbs_lib.prepare.examples import Example

from . import damaged
from .reading import SECRET, TEXTS, Images, plant, put, read

NAMES = (
    "file_name",
    "text",
    "image",
    "caption",
    "prompt",
    "path",
    "bytes",
    "a.b",
    "image.bytes",
    "",
    "ü",
    "\u2028",
)
TYPES = (
    pyarrow.int64(), pyarrow.float16(), pyarrow.timestamp("s"), pyarrow.date64(),
    pyarrow.duration("s"), pyarrow.bool_(), pyarrow.decimal128(38, 3),
    pyarrow.list_(pyarrow.string()), pyarrow.time64("ns"), pyarrow.null(),
)  # fmt: skip
GOOD = {"good1.png": "the good row 1", "good2.png": "the good row 2"}


class Fuzzer:
    def __init__(self, folder: Path):
        datasets.disable_progress_bars()
        self.images, self.outside, self.folder = Images(), folder / "outside", folder / "a föld er"
        plant(self.outside)
        self.folder.mkdir()
        for name in (*GOOD, "a.png", "c.png"):
            (self.folder / name).write_bytes(self.images.good)
        (self.folder / "c.txt").write_text("beside")
        for ending in (".jsonl", ".csv", ".parquet"):
            self._secret(ending)
        self.saved = folder / "saved"
        rows = {"image": [{"bytes": self.images.good, "path": None}] * 3, "text": ["x", "y", "z"]}
        features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
        datasets.Dataset.from_dict(rows, features=features).save_to_disk(self.saved)
        self.state = json.loads((self.saved / "state.json").read_text())
        shutil.copytree(self.saved, self.outside / "saved")

    def _secret(self, ending: str):
        """A table outside: an image of the folder with a caption that nothing may read."""
        rows = {"file_name": ["a.png", "c.png"], "text": [SECRET, SECRET]}
        path = self.outside / f"secret{ending}"
        match ending:
            case ".jsonl":
                path.write_text(
                    "\n".join(
                        json.dumps({"file_name": name, "text": SECRET})
                        for name in rows["file_name"]
                    )
                )
            case ".csv":
                path.write_text(f"file_name,text\na.png,{SECRET}\nc.png,{SECRET}\n")
            case _:
                pyarrow.parquet.write_table(pyarrow.table(rows), path)

    def case(self, rng: Random) -> str:
        if rng.random() < 0.02:
            return self._saved(rng)
        ending = rng.choice((".jsonl", ".csv", ".parquet"))
        data, sure = getattr(self, ending[1:])(rng)
        if rng.random() < 0.4:
            data, sure = damaged(rng, data), False
        path = self.folder / f"metadata{ending}"
        put(path, rng, data, self.outside / f"secret{ending}")
        whole = path.is_file() and not path.is_symlink()
        alone = whole and rng.random() < 0.5
        columns = (
            {"image_column": rng.choice(NAMES), "caption_column": rng.choice(NAMES)}
            if rng.random() < 0.1
            else {}
        )
        outcome, items = read(path if alone else self.folder, **columns)
        if sure and whole and not columns:
            captions = {item.id: item.caption for item in items if isinstance(item, Example)}
            assert captions.items() >= GOOD.items(), captions
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
        return f"{ending[1:]} {outcome}"

    def jsonl(self, rng: Random) -> tuple[bytes, bool]:
        lines = [
            json.dumps({"file_name": name, "text": text}).encode() for name, text in GOOD.items()
        ]
        for _ in range(rng.randrange(4)):
            lines.insert(rng.randrange(len(lines) + 1), self._line(rng))
        return (b"\n".join(lines) + b"\n", True)

    def _line(self, rng: Random) -> bytes:
        match rng.randrange(8):
            case 0:
                return rng.choice(
                    (
                        b"{",
                        b"[1]",
                        b"null",
                        b"\xff\xfe",
                        b"\xef\xbb\xbf{}",
                        b'{"text": "\xff"}',
                        b"1e999",
                        b"\r",
                    )
                )
            case 1:
                return rng.choice((b"[", b'{"text":')) * rng.choice((100, 100_000))
            case 2:
                return b'{"file_name": "c.png", "text": ' + b"9" * rng.choice((100, 5000)) + b"}"
            case 3 if rng.random() < 0.05:
                return b'{"text": "' + b"x" * (1 << 21) + b'"}'
            case _:
                return json.dumps(
                    {rng.choice(NAMES): value(rng) for _ in range(rng.randrange(4))}
                ).encode()

    def csv(self, rng: Random) -> tuple[bytes, bool]:
        file = io.StringIO()
        writer = csv.writer(file, quoting=rng.choice((csv.QUOTE_ALL, csv.QUOTE_MINIMAL)))
        rows = [list(row) for row in GOOD.items()]
        for _ in range(rng.randrange(4)):
            rows.insert(
                rng.randrange(len(rows) + 1), [str(value(rng)) for _ in range(rng.randrange(5))]
            )
        writer.writerows([("file_name", "text"), *rows])
        data = file.getvalue().encode("utf-8", "surrogatepass")
        if rng.random() < 0.1:
            data += rng.choice(
                (b'"', b"a,\xff\n", b"," * 100_000, b"x" * (5 << 20), b"\0\0\n", b"\r\r\n")
            )
        return data, True

    def parquet(self, rng: Random) -> tuple[bytes, bool]:
        if rng.random() < 0.003:
            return bomb(rng.choice(("text", "image")), rng.choice(("snappy", "zstd"))), False
        names, texts = [*GOOD, "c.png"], [*GOOD.values(), b"\xff\xfe bad"]
        order = [0, 1, 2]
        rng.shuffle(order)
        columns = {
            "file_name": text_array([names[i] for i in order]),
            "text": text_array([texts[i] for i in order]),
        }
        sure = rng.random() < 0.5
        arrays = list(columns.items())
        if not sure:
            for _ in range(rng.randrange(1, 4)):
                arrays.insert(rng.randrange(len(arrays) + 1), (rng.choice(NAMES), self._array(rng)))
            if rng.random() < 0.5:
                del arrays[rng.randrange(len(arrays))]
        rng.shuffle(arrays)
        table = pyarrow.Table.from_arrays(
            [array for _, array in arrays], names=[name for name, _ in arrays]
        )
        options = {
            "row_group_size": rng.choice((1, 2, 100)),
            "compression": rng.choice(("snappy", "zstd", "none", "gzip")),
        }
        options |= {
            "data_page_version": rng.choice(("1.0", "2.0")),
            "use_dictionary": rng.random() < 0.5,
        }
        try:
            pyarrow.parquet.write_table(table, file := io.BytesIO(), **options)
        except (pyarrow.ArrowException, ValueError):  # a type that parquet has not
            return b"PAR1", False
        return file.getvalue(), sure

    def _array(self, rng: Random) -> pyarrow.Array:
        match rng.randrange(6):
            case 0:
                return pyarrow.array(
                    [
                        {"bytes": self.images.any(rng), "path": rng.choice(TEXTS[2:4])}
                        for _ in range(3)
                    ]
                )
            case 1:
                return text_array(
                    [
                        rng.choice((b"\xff", b"c.png", b"../outside/secret.png", b"x" * 5000))
                        for _ in range(3)
                    ]
                )
            case 2:
                return text_array(["c.png", "a.png", "c.png"]).dictionary_encode()
            case 3:
                return pyarrow.array([{"path": "c.png"}, None, {}])
            case _:
                kind = rng.choice(TYPES)
                bits = pyarrow.array([rng.randrange(-(2**63), 2**63) for _ in range(3)])
                return bits.view(kind) if kind in TYPES[2:5:2] else pyarrow.nulls(3, kind)

    def _saved(self, rng: Random) -> str:
        state = dict(self.state)
        name = rng.choice(
            (
                "../outside/saved/data-00000-of-00001.arrow",
                *TEXTS[14:18],
                "data-00000-of-00001.arrow",
            )
        )
        state["_data_files"] = [{"filename": name}]
        state[rng.choice(list(state))] = rng.choice(
            (state["_data_files"], None, 3, [], {"filename": 1}, [1], [{}])
        )
        place = self.saved / "state.json"
        put(place, rng, json.dumps(state).encode(), self.outside / "saved" / "state.json")
        outcome, _ = read(self.saved)
        return f"saved {outcome}"


def value(rng: Random):
    """A value that does not belong into a table."""
    plain = (None, True, 3, -1.5, float("nan"), 10**40, [], {}, ["a.png"], {"a": [1]})
    return rng.choice(plain) if rng.random() < 0.4 else rng.choice(TEXTS)


def text_array(values: list[str | bytes]) -> pyarrow.Array:
    """A column of text, valid or not."""
    raw = pyarrow.array(
        [
            each.encode("utf-8", "surrogatepass") if isinstance(each, str) else each
            for each in values
        ]
    )
    return pyarrow.Array.from_buffers(pyarrow.string(), len(raw), raw.buffers())


@cache
def bomb(column: str, codec: str) -> bytes:
    """A parquet file of kilobytes whose 40 rows share a value of 8 MiB."""
    large = pyarrow.DictionaryArray.from_arrays(
        pyarrow.array([0] * 40, pyarrow.int32()), [bytes(8 << 20)]
    )
    names = pyarrow.array(["a.png"] * 40)
    if column == "image":
        large = pyarrow.StructArray.from_arrays([large], ["bytes"])
    table = pyarrow.table(
        {"file_name": names, "text": large} if column == "text" else {"image": large, "text": names}
    )
    options = {"dictionary_pagesize_limit": 1 << 30, "compression": codec}
    pyarrow.parquet.write_table(table, file := io.BytesIO(), **options)
    return file.getvalue()
