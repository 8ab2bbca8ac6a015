"""Damage and hostile sizes: each affects itself alone, and takes little memory and time."""

import io
import json
import re
import struct
import tarfile
import time
from decimal import Decimal
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from nbs_lib.config import Prepare
from nbs_lib.prepare.encode.chunks import IMAGE_FILE_BYTES, split_into_chunks
from nbs_lib.prepare.examples import Example, InMemory, SourceError
from nbs_lib.prepare.filters import Filters
from nbs_lib.prepare.images import ImageError, decode
from nbs_lib.prepare.sources import SourceOptions, open_source

from .test_sources import add, diffusiondb, examples, png, read, reasons  # noqa: F401 - a fixture

MIB = 1 << 20


def texts(*values: str | bytes) -> pyarrow.Array:
    """A column of text, UTF-8 or not."""
    raw = pyarrow.array([item.encode() if isinstance(item, str) else item for item in values])
    return pyarrow.Array.from_buffers(pyarrow.string(), len(raw), raw.buffers())


def write(path: Path, columns: dict | list, **options) -> Path:
    arrays = list(columns.items()) if isinstance(columns, dict) else columns
    table = pyarrow.Table.from_arrays(
        [pyarrow.array(item) for _, item in arrays], names=[name for name, _ in arrays]
    )
    pyarrow.parquet.write_table(table, path, **options)
    return path


def test_a_row_that_is_not_utf8_affects_itself_alone(folder):
    path = write(
        folder / "metadata.parquet",
        {"file_name": ["a.png", "b.png", "c.png"], "text": texts("x", b"\xff", "z")},
    )
    assert examples(path) == {"a.png": "x", "c.png": "z"} and reasons(path) == {
        "b.png": "caption is not UTF-8 text"
    }
    images = [{"bytes": png(), "path": None}] * 3
    path = write(folder / "images.parquet", {"image": images, "text": texts("x", b"\xff", "z")})
    assert list(examples(path).values()) == ["x", "z"] and reasons(path) == {
        "images-000001": "caption is not UTF-8 text"
    }
    (folder / "t.csv").write_bytes(b"file_name,text\na.png,x\nb.png,\xff\nc.png,z\n")
    assert examples(folder / "t.csv") == {"a.png": "x", "c.png": "z"}
    assert reasons(folder / "t.csv") == {"b.png": "caption is not UTF-8 text"}


def test_a_csv_row_that_is_too_long_affects_itself_alone(folder):
    (folder / "t.csv").write_text(f"file_name,text\na.png,x\nb.png,{'y' * (5 * MIB)}\nc.png,z\n")
    assert examples(folder / "t.csv") == {"a.png": "x", "c.png": "z"}
    assert reasons(folder / "t.csv") == {"b.png": "caption is longer than 1 MiB"}


def test_a_damaged_row_group_affects_itself_alone(folder):
    columns = {"file_name": ["a.png", "b.png", "c.png"], "text": ["x", "y" * 50, "z"]}
    path = write(
        folder / "metadata.parquet",
        columns,
        row_group_size=1,
        compression="none",
        use_dictionary=False,
    )
    data = path.read_bytes()
    at = data.index(b"y" * 50)
    path.write_bytes(data[: at - 4] + struct.pack("<I", 1 << 30) + data[at:])
    assert examples(path) == {"a.png": "x", "c.png": "z"}
    assert reasons(path) == {"metadata.parquet, from row 2": "table is truncated or damaged"}


def test_equal_column_names_are_refused_and_impossible_dates_skipped(folder):
    path = write(folder / "t.parquet", [("file_name", ["a.png"]), ("text", ["x"]), ("text", ["y"])])
    with pytest.raises(SourceError, match="2 columns of the name text"):
        read(path)
    (folder / "t.csv").write_text("file_name,text,text\na.png,x,y\n")
    with pytest.raises(SourceError, match="2 columns of the name text"):
        read(folder / "t.csv")
    dates = pyarrow.array([2**62] * 2).view(pyarrow.timestamp("us"))
    path = write(folder / "t.parquet", {"file_name": ["a.png", "b.png"], "text": dates})
    assert set(reasons(path).values()) == {"lacks file_name or text"}
    path = write(
        folder / "t.parquet", {"image": [{"bytes": png(), "path": None}] * 2, "text": dates}
    )
    assert set(reasons(path).values()) == {"caption is no text"}


def bomb(path: Path, column: str, mebibytes: int, rows: int, shared: bool) -> Path:
    """Write a table of kilobytes that unpacks to gigabytes.

    shared: rows share a value; otherwise there is a page of zeros.
    """
    large = pyarrow.array([bytes(mebibytes * MIB)] * (1 if shared else rows), pyarrow.binary())
    if shared:
        large = pyarrow.DictionaryArray.from_arrays(
            pyarrow.array([0] * rows, pyarrow.int32()), large
        )
    columns = {"image": pyarrow.StructArray.from_arrays([large], ["bytes"]), "text": ["x"] * rows}
    if column == "text":
        columns = {
            "file_name": ["a.png"] * rows,
            "text": large if shared else large.view(pyarrow.string()),
        }
    options = {
        "compression": "zstd",
        "use_dictionary": shared,
        "dictionary_pagesize_limit": 1 << 30,
    }
    return write(path, columns, data_page_size=1 << 30, **options)


@pytest.mark.parametrize("column", ["text", "image"])
def test_tables_that_unpack_to_gigabytes_take_little_memory(folder, column):
    shared = bomb(folder / "shared.parquet", column, 24, 16, shared=True)
    page = bomb(folder / "page.parquet", column, 80, 1, shared=False)
    assert shared.stat().st_size < 10_000 and page.stat().st_size < 10_000
    before = peak(fresh=True)
    assert sum(1 for _ in open_source(str(shared), SourceOptions())) == 16
    assert "unpacks to more than 64 MiB" in reasons(page)["page.parquet, from row 1"]
    assert peak() - before < 300, "MiB; 16 rows of 24 MiB are 384"


def peak(fresh: bool = False) -> float:
    """Peak memory of this process in MiB, of what it has from now on where it is to be fresh."""
    if fresh:
        Path("/proc/self/clear_refs").write_text("5")
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def test_a_chunk_of_large_images_has_few_rows():
    source = [
        Example(str(i), "x", InMemory(str(i), bytes(IMAGE_FILE_BYTES // 4))) for i in range(9)
    ]
    assert [len(chunk) for chunk in split_into_chunks(source, 128)] == [4, 4, 1]
    assert [len(chunk) for chunk in split_into_chunks([Example("x", "x")] * 9, 4)] == [4, 4, 1]


def header(name: str, size: int, kind: bytes) -> bytes:
    block = bytearray(tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT))
    block[124:136] = b"\x80" + size.to_bytes(11)
    block[156:157], block[148:156] = kind, b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block)


@pytest.mark.parametrize("kind", [b"0", b"L", b"x", b"g", b"K", b"S"])
@pytest.mark.parametrize("size", [1 << 80, 40 << 30])
def test_a_tar_header_with_a_huge_size_ends_its_archive_alone(tmp_path, kind, size):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add(tar, "1.png", png())
        add(tar, "1.txt", b"before")
    end = (tmp_path / "a.tar").read_bytes().rindex(b"before") + 512
    data = (tmp_path / "a.tar").read_bytes()[:end]
    (tmp_path / "a.tar").write_bytes(data + header("x.png", size, kind) + bytes(1024))
    before = peak(fresh=True)
    assert (
        examples(tmp_path) == {"a/1": "before"}
        and reasons(tmp_path)["a.tar"] == "archive is cut short or damaged"
    )
    assert peak() - before < 50


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_are_read_in_each_format_and_3000_in_a_row(tmp_path, form):
    long = "ordner/" + "x" * 90 if form == tarfile.USTAR_FORMAT else "bücher/" * 30 + "x" * 200
    with tarfile.open(tmp_path / "a.tar", "w", format=form) as tar:
        for ending, data in {".png": png(), ".txt": b"a caption"}.items():
            add(tar, long + ending, data)
    assert examples(tmp_path) == {f"a/{long}": "a caption"}
    chain = (header("././@LongLink", 6, b"L") + b"1.png\0".ljust(512, b"\0")) * 3000
    (tmp_path / "a.tar").write_bytes(chain + header("y.png", 0, b"0") + bytes(1024))
    assert reasons(tmp_path) == {"a/1": "image without caption"}


def test_scores_are_read_from_any_type():
    filters = Filters(Prepare(max_nsfw=0.5))
    without = Filters(Prepare())

    def reason(score, filters=filters) -> str | None:
        return (filters.before(Example("e", "a cat", None, {"image_nsfw": score})) or (None,))[0]

    for low in (
        "0.5",
        0,
        0.25,
        Decimal("0.1"),
        np.float16(0.5),
        [0.1],
        ["0.1", 0.2],
        False,
        b"0.1",
        " 0.1 ",
    ):
        assert reason(low) is None, low
    for high in ("0.51", 1, Decimal("0.6"), np.float32(0.9), [0.1, 0.9], True, float("inf"), "1e3"):
        assert reason(high) == "image_nsfw above max_nsfw", high
    for blurred in ("2.0", 2, Decimal(2), [2.0]):
        assert (
            reason(blurred) == reason(blurred, without) == "image_nsfw 2.0: blurred by its source"
        )
    for none in (
        None,
        "",
        "high",
        float("nan"),
        "nan",
        [],
        [None],
        [[0.1]],
        {},
        -1,
        10**400,
        b"\xff",
    ):
        assert reason(none) == "image_nsfw cannot be read, and max_nsfw is set", none
        assert reason(none, without) is None


def rewrite(folder: Path, change) -> None:
    path = folder / "metadata.parquet"
    rows = pyarrow.parquet.read_table(path).to_pylist()
    pyarrow.parquet.write_table(
        pyarrow.Table.from_pylist([row for row in map(change, rows) if row]), path
    )


def kept_ids(folder: Path, **parameters) -> list[str]:
    filters = Filters(Prepare(**parameters))
    return [
        item.id
        for item in read(folder, subset="1")
        if isinstance(item, Example) and not filters.before(item)
    ]


def test_diffusiondb_images_without_a_score_are_kept_only_without_a_limit(diffusiondb):  # noqa: F811
    assert kept_ids(diffusiondb, max_nsfw=0.4) == ["part-000001/10-uuid.png"]
    rewrite(
        diffusiondb,
        lambda row: (
            row | {"image_nsfw": str(row["image_nsfw"]), "prompt_nsfw": [row["prompt_nsfw"]]}
        ),
    )
    assert (
        kept_ids(diffusiondb, max_nsfw=0.4) == ["part-000001/10-uuid.png"]
        and len(kept_ids(diffusiondb)) == 3
    )
    rewrite(diffusiondb, lambda row: row if row["image_name"] == "11-uuid.png" else None)
    assert (
        kept_ids(diffusiondb, max_nsfw=0.9) == ["part-000001/11-uuid.png"]
        and len(kept_ids(diffusiondb)) == 3
    )
    (diffusiondb / "metadata.parquet").write_bytes(b"")
    assert kept_ids(diffusiondb, max_nsfw=0.9) == [] and len(kept_ids(diffusiondb)) == 3


def test_diffusiondb_prompts_come_from_the_table_if_the_json_is_broken(diffusiondb):  # noqa: F811
    names = [f"1{i}-uuid.png" for i in range(3)]
    for broken in (b"{", b"[" * 100_000, b"\xff", b"[]", b'{"x": "' + b"x" * (9 * MIB) + b'"}'):
        with ZipFile(diffusiondb / "images" / "part-000001.zip", "w") as archive:
            archive.writestr("part-000001.json", broken)
            for name in names:
                archive.writestr(name, png())
        assert list(examples(diffusiondb, subset="1").values()) == [
            f"prompt {name}" for name in names
        ]
        assert reasons(diffusiondb, subset="1")["part-000001.json"].startswith(
            "prompts cannot be read"
        )


def test_a_list_is_no_image_name_in_diffusiondb(diffusiondb):  # noqa: F811
    rewrite(diffusiondb, lambda row: row | {"image_name": [row["image_name"]], "seed": None})
    assert len(examples(diffusiondb, subset="1")) == 3 and kept_ids(diffusiondb, max_nsfw=0.9) == []


def stored(kind: str, **options) -> bytes:
    Image.new("RGB", (1000, 1000)).save(file := io.BytesIO(), kind, **options)
    return file.getvalue()


def image_bombs() -> dict[str, bytes]:
    jpeg, png, gif = stored("JPEG", progressive=True), stored("PNG"), stored("GIF")
    scan = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    large = jpeg.replace(struct.pack(">HH", 1000, 1000), struct.pack(">HH", 9000, 9000), 1)
    tags = struct.pack("<HHII", 0x111, 4, 1 << 28, 8)
    return {
        "JPEG of too many scans": jpeg[:-2] + scan * 2000 + jpeg[-2:],
        "JPEG of too many scans ": large[:-2] + scan * 30 + jpeg[-2:],
        "JPEG of more than 5,000 segments": jpeg[:2] + b"\xff\xfe\0\2" * 1_000_000 + jpeg[2:],
        "PNG of more than 1,000 chunks": png[:33] + b"\0\0\0\0teSt\0\0\0\0" * 500_000 + png[33:],
        "PNG of more than 131,072 chunks": png[:33]
        + b"\0\0\0\0IDAT\x35\xaf\x06\x1e" * 500_000
        + png[33:],
        "GIF of more than 131,072 blocks": gif[:13]
        + b"!\xfe"
        + b"\1x" * 5_000_000
        + b"\0"
        + gif[13:],
        "TIFF with more than 262,144 values": b"II*\0"
        + struct.pack("<IH", 8, 1)
        + tags
        + bytes(64),
    }


@pytest.mark.parametrize("reason", image_bombs())
def test_images_of_too_many_parts_are_refused_at_once(reason):
    data, start = image_bombs()[reason], time.process_time()
    with pytest.raises(ImageError, match=reason.strip()):
        decode(data)
    assert time.process_time() - start < 1


def test_jpeg_scans_are_not_confused_with_bytes_of_comments():
    looks_like = b"\xff\xda" * 30_000
    data = stored("JPEG", progressive=True, comment=looks_like) + looks_like
    assert decode(data).size == (1000, 1000), "in a comment, and after the end"


def test_json_lines_that_are_no_rows_affect_themselves_alone(folder, metadata):
    metadata(
        {"file_name": "a.png", "text": "x"},
        '{"file_name": "' + "x" * (2 * MIB) + '"}',
        json.dumps([1]),
    )
    assert examples(folder)["a.png"] == "x" and len(reasons(folder)) == 2
