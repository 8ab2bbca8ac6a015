"""Runs with hostile records, names or pictures: one row each, harmless to a terminal."""

import json
import os
import shutil
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from nbs_lib.files import HOST, append_jsonl, read_jsonl
from nbs_lib.pipeline import paths
from nbs_lib.pipeline.progress.reader import ProgressReader
from nbs_lib.pipeline.runs import cleanup, index_page
from nbs_lib.pipeline.runs.diff import difference
from nbs_lib.pipeline.runs.table import align_columns, columns, list_rows
from nbs_lib.run.record import read_metrics
from nbs_lib.run.run import Run, RunError
from nbs_lib.run.terminal_text import printable, printable_json
from nbs_lib.untrusted_files import read_json

TITLE = "\x1b]0;owned\x07"
STAGE = {
    "status": "done",
    "started": "2026-01-01T10:00:00+00:00",
    "seconds": 61.0,
    "loss": 0.1,
    "parameters": {"rank": 4},
}
DEEP = "[" * 900 + "]" * 900
BAD = {
    "a numeric start": json.dumps({"stages": {"train": STAGE | {"started": 5}}}),
    "endless seconds": '{"stages": {"train": {"seconds": Infinity}}}',
    "a text for seconds": json.dumps({"stages": {"train": STAGE | {"seconds": "long"}}}),
    "a list of parameters": json.dumps({"stages": {"train": STAGE | {"parameters": ["rank"]}}}),
    "a number as what was asked": json.dumps({"asked": 5}),
    "a text as a stage that was asked": json.dumps({"asked": {"recipe": "demo", "train": "x"}}),
    "an output elsewhere": json.dumps(
        {"stages": {"train": STAGE | {"outputs": {"../../../etc/passwd": "0"}}}}
    ),
    "an output at the root": json.dumps(
        {"stages": {"train": STAGE | {"outputs": {"/dev/zero": "0"}}}}
    ),
    "a list as status": json.dumps({"status": ["done"]}),
    "nested deeply": f'{{"stages": {{"train": {{"x": {DEEP}}}}}}}',
    "nested without end": "[" * 100_000,
    "a number of 5000 digits": f'{{"stages": {{"train": {{"loss": {"9" * 5000}}}}}}}',
}


@pytest.fixture
def outputs(tmp_path, monkeypatch) -> Path:
    """Two whole runs, `a` and `z`; a test puts another one between them."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    for name in ("a", "z"):
        make(tmp_path / "outputs" / name)
    return tmp_path / "outputs"


def make(
    folder: Path, record: str = json.dumps({"status": "done", "stages": {"train": STAGE}})
) -> Run:
    (folder / "compare" / "pictures").mkdir(parents=True)
    (folder / "run.json").write_text(record)
    Image.new("RGB", (200, 200)).save(folder / "compare" / "pictures" / "p00_s0_tuned.png")
    return Run(folder)


def rows_after_looking(outputs: Path) -> list[dict]:
    """The rows of all runs, after everything that looks at all of them has done so."""
    cleanup.gc(dry_run=True)
    page = index_page.refresh().read_text("utf-8")
    assert "<td" in page and page.count('/thumbnail.png"') >= 2
    rows = list_rows()
    lines = align_columns(columns(rows, sorted({name for row in rows for name in row})))
    assert all(line == printable(line) for line in lines)
    intact = {row["name"]: row for row in rows if row["name"] in ("a", "z")}
    assert [row["train.loss"] for row in intact.values()] == [0.1, 0.1] and intact["a"][
        "started"
    ] == STAGE["started"]
    return rows


@pytest.mark.parametrize("trouble", BAD)
def test_damaged_record_is_one_row(outputs, trouble):
    run = make(outputs / "m", BAD[trouble])
    assert [row["status"] for row in rows_after_looking(outputs)] == ["done", "damaged", "done"]
    with pytest.raises(RunError, match=r"run.json is damaged; remove it"):
        run.read()


def test_link_to_itself_is_no_file(outputs):
    run = make(outputs / "m")
    for name in ("cache", "log.txt"):
        (run.folder / name).symlink_to(name)
    assert [row["status"] for row in rows_after_looking(outputs)] == ["done"] * 3


@pytest.mark.parametrize("kind", ["pipe", "folder", "endless", "large", "circle"])
def test_record_that_is_no_file_does_not_block(outputs, kind):
    record = make(outputs / "m").record
    record.unlink()
    if kind == "pipe":
        os.mkfifo(record)
    elif kind == "folder":
        record.mkdir()
    elif kind == "large":
        with record.open("wb") as file:
            file.truncate(1 << 40)
    else:
        record.symlink_to("/dev/zero" if kind == "endless" else record.name)
    assert {row["status"] for row in rows_after_looking(outputs)} == {"done"} | (
        {"damaged"} if kind != "circle" else set()
    )


@pytest.mark.parametrize(
    "fields", [{"pid": "../1"}, {"pid": 10**30}, {"host": 5}, {"parent": "x"}, {"begun": ["1"]}]
)
def test_damaged_lock_holds_nothing(outputs, fields):
    run = make(outputs / "m")
    holder = {
        "pid": os.getpid(),
        "begun": "1",
        "parent": 1,
        "host": HOST,
        "since": "then",
        "what": TITLE,
    }
    (run.folder / ".stage.lock").write_text(json.dumps(holder | fields))
    assert not run.is_active() and len(rows_after_looking(outputs)) == 3
    with run.exclusive():
        pass


@pytest.mark.parametrize(
    "name", [b"m\xff", b"m\x1b[31m", b"m\nforged: done", b"\xe2\x80\xaem", b"%s{0}", b"-m"]
)
def test_run_of_any_name_is_listed(outputs, name):
    make(outputs / os.fsdecode(name))
    rows = rows_after_looking(outputs)
    assert os.fsdecode(name) in [row["name"] for row in rows]
    assert len(json.loads(printable_json(rows))) == 3


def bomb(side: int) -> bytes:
    """A small PNG of so many pixels a side."""
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(1 << 20))),
        (b"IEND", b""),
    ]
    chunks = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_huge_picture_file_is_not_read(outputs):
    run = make(outputs / "m")
    with (run.compare / "pictures" / "p00_s0_tuned.png").open("wb") as file:
        file.truncate(1 << 42)
    assert difference(Run(outputs / "a"), run).pictures == {"p00_s0_tuned.png": None}
    assert len(rows_after_looking(outputs)) == 3


@pytest.mark.parametrize("side", [97, 60_000, 0xFFFFFFFF])
def test_picture_of_too_many_pixels_is_not_opened(outputs, side):
    run = make(outputs / "m")
    run.thumbnail.write_bytes(bomb(side))
    (run.compare / "pictures" / "p00_s0_tuned.png").write_bytes(bomb(60_000))
    page = index_page.refresh().read_text()
    assert page.count('/thumbnail.png"') == 2
    assert difference(Run(outputs / "a"), run).pictures == {"p00_s0_tuned.png": None}


def test_linked_thumbnail_is_not_shown(outputs, tmp_path):
    Image.new("RGB", (5, 5), (1, 2, 3)).save(tmp_path / "secret.png")
    run = make(outputs / "m")
    run.thumbnail.symlink_to(tmp_path / "secret.png")
    before = (tmp_path / "secret.png").read_bytes()
    assert index_page.refresh().read_text().count('/thumbnail.png"') == 3
    assert not run.thumbnail.is_symlink() and (tmp_path / "secret.png").read_bytes() == before


@pytest.mark.slow
def test_resume_beside_a_damaged_run(project):
    project.onepass("run", "demo", "--name", "beside")
    for name, record in (("numeric", BAD["a numeric start"]), ("deep", BAD["nested deeply"])):
        make(project.outputs / f"beside-{name}", record)
    (project.outputs / "beside-numeric" / "thumbnail.png").write_bytes(bomb(60_000))
    hostile = project.outputs / os.fsdecode(b"beside \xff\x1b]0;owned\x07")
    make(hostile)
    try:
        assert "unchanged, kept" in project.onepass("resume", "beside").stdout
        for command in (
            ["list"],
            ["list", "--json"],
            ["gc", "--dry-run"],
            ["index"],
            ["show", hostile.name],
            ["show", TITLE],
            [TITLE],
        ):
            done = project.start(*command)
            out, err = done.communicate(timeout=120)
            assert "Traceback" not in err and not {"\x1b", "\x07"} & {*out, *err}, (
                command,
                out,
                err,
            )
    finally:
        for folder in project.outputs.glob("beside[- ]*"):
            shutil.rmtree(folder)


def test_control_characters_are_escaped(outputs):
    assert (
        printable(f"a{TITLE}\nb\udcff\x9b\u202e ü 猫")
        == "a\\x1b]0;owned\\x07\\nb\\udcff\\x9b\\u202e ü 猫"
    )
    assert printable("a\nb\r", lines=True) == "a\nb\\x0d"
    value = {f"a{TITLE}\x9b": ["\u202e\n", 1.5, "\udcff"]}
    assert json.loads(printable_json(value)) == value and not set(printable_json(value)) & {
        "\x1b",
        "\x9b",
        "\u202e",
        "\udcff",
    }
    run = make(outputs / "m")
    run.metrics.write_text(
        '5\n{"step": 1, "loss": "x"}\n[]\n{"step": 4, "loss": 0.5}\n{"step": "5"}\n{"loss": 1}\n'
    )
    run.log.write_text(f"{TITLE}30%")
    assert str(ProgressReader(run, "compare").read()).endswith("\\x1b]0;owned\\x0730%")
    run.update_stage("train", resolved={"steps": 8})
    reader = ProgressReader(run, "train")
    reader.earlier_metrics = None
    assert "step 4 of 8, loss 0.5000" in str(reader.read())
    assert read_metrics(run.metrics) == [{"step": 4, "loss": 0.5}]


def test_damaged_line_is_skipped_and_stays_in_the_file(tmp_path):
    path = tmp_path / "votes.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": \n\xff\n' + b"[" * 100_000 + b"\n7\n{half")
    append_jsonl(path, {"b": "\u2028"})
    assert read_jsonl(path) == [{"a": 1}, {"b": "\u2028"}] and path.read_bytes().startswith(
        b'{"a": 1}\n{"a": \n\xff\n[['
    )
    with pytest.raises(ValueError, match="nested too deeply"):
        path.write_text(DEEP)
        read_json(path)
