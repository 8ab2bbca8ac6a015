"""Hostile runs beside whole ones, read by list, show, diff, index, gc, resume and the caches."""

import io
import json
import logging
import os
import re
import shutil
import struct
import zlib
from collections.abc import Callable
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import typer
from PIL import Image

from nbs_lib import files
from nbs_lib.cache.format import META
from nbs_lib.cli import clean as tidying
from nbs_lib.cli import inspect as looking
from nbs_lib.cli.app import print_result, report_errors
from nbs_lib.compare.playground.votes import read_votes, tally_votes
from nbs_lib.config import STAGES
from nbs_lib.files import file_hash, read_jsonl
from nbs_lib.pipeline import paths as places
from nbs_lib.pipeline.plan import plan
from nbs_lib.pipeline.progress.reader import ProgressReader
from nbs_lib.pipeline.runner import requested
from nbs_lib.pipeline.runs.table import run_values
from nbs_lib.run.record import read_metrics
from nbs_lib.run.run import Run
from tests.fuzz import damaged

KEY = "c0ffee" * 10 + "abcd"
SECRET = b"of nobody else's business"
ESCAPES = (
    "\x1b]0;owned\x07",
    "a\nb: done",
    "\x9b31m",
    "\u202egpj",
    "\ud800",
    "\x00",
    "\r\x1b[2K",
    "\u2028",
    "\x7f",
    "\t",
)
TEXTS = (
    *ESCAPES,
    "",
    "../../../secret",
    "/etc/passwd",
    "x" * 5000,
    "nan",
    "{}",
    "$(id)",
    "%s",
    "'\"",
    "ü\U0001f600",
)
NUMBERS = (0, -1, 5, True, 10**400, -(10**400), 1e308, -0.0, float("nan"), float("inf"), 1 << 63)
NAMES = (
    b"mid", b"m\xff\xfe", b"\x1b[31mred", b"two\nlines", b"[a]*", b"--help", b"{0}", b"%s", b" x",
    "\u202ex".encode(), b"n" * 255, b"\xed\xa0\x80", "ü".encode(), b".hidden", b"a'b\"c",
)  # fmt: skip
RECORDS = (
    "run.json", ".stage.lock", ".recipe.lock", "metrics.jsonl", "votes.jsonl", "thumbnail.png",
    "compare/pictures/p00_s0_tuned.png", "3_compare.ipynb", "adapter", "checkpoints", "compare",
    "cache",
)  # fmt: skip


class Fuzzer:
    """An outputs/ with two whole runs, `alpha` and `zeta`, and one that each case writes again."""

    def __init__(self, folder: Path):
        self.root = folder / "project"
        self.outputs = self.root / "outputs"
        self.secret = folder / "secret"
        self.secret.write_bytes(SECRET)
        store = self.outputs / "cache" / KEY
        (store / "latents").mkdir(parents=True)
        (store / "latents" / "a.safetensors").write_bytes(b"latents")
        self.meta = _meta(store)
        self._restore()
        for name, status in (("alpha", "done"), ("zeta", "failed")):
            self._fill(self.outputs / name, status)
        (self.outputs / "alpha" / "checkpoints" / "step-1").mkdir(parents=True)
        self.record = json.loads((self.outputs / "alpha" / "run.json").read_text())
        with self._here():
            self.rows = {name: run_values(Run(self.outputs / name)) for name in ("alpha", "zeta")}

    def case(self, rng: Random) -> str:
        """Damage a run, or the cache, and look at everything there is."""
        victim = self.outputs / os.fsdecode(rng.choice(NAMES) if rng.random() < 0.3 else NAMES[0])
        try:
            self._harm(rng, victim)
            with self._here():
                return self._look(rng, victim)
        finally:
            self._clear()

    def _look(self, rng: Random, victim: Path) -> str:
        listed = json.loads(_said(lambda: looking.list_runs("", None, "", True)))
        found = {each["name"]: each for each in listed}
        assert {name: found[name] for name in self.rows} == self.rows, (
            "a whole run is not listed as it is"
        )
        assert len(found) == len(listed) <= 3
        outcome = {"damaged": "refused"}.get(
            found.get(victim.name, {"status": "none"})["status"], "accepted"
        )
        if rng.random() < 0.3:
            said = _said(lambda: looking.list_runs("", None, "", False)).splitlines()
            assert [line.split()[1] for line in said if line.startswith(("alpha ", "zeta "))] == [
                "done",
                "failed",
            ], said
        looks = [
            self._show,
            self._diff,
            self._gc,
            self._caches,
            self._lines,
            self._index,
            self._plan,
        ]
        for look in set(rng.choices(looks, (6, 3, 4, 4, 4, 2, 1), k=2)):
            look(victim)
        assert self.secret.read_bytes() == SECRET
        return outcome

    def _show(self, victim: Path):
        for as_json in (False, True):
            _said(lambda: looking.show(victim.name, as_json))  # noqa: B023  (called at once)
        assert "alpha: done" in _said(lambda: looking.show("alpha", False))

    def _diff(self, victim: Path):
        _said(lambda: looking.diff("alpha", victim.name, False))
        _said(lambda: looking.diff(victim.name, "alpha", True))
        assert json.loads(_said(lambda: looking.diff("alpha", "alpha", True)))["same"]

    def _gc(self, victim: Path):
        gone = {each["path"] for each in json.loads(_said(lambda: tidying.gc(True, True)))}
        assert str(self.outputs / "alpha" / "checkpoints") in gone
        assert not {
            path for path in gone if "zeta" in path or not path.startswith(str(self.outputs))
        }

    def _caches(self, victim: Path):
        told = json.loads(_said(lambda: tidying.list_caches(True)))
        assert [each["key"] for each in told] == [KEY] and "alpha" in told[0]["runs"]
        _said(lambda: tidying.list_caches(False))
        _said(lambda: tidying.verify_caches(False))
        assert all(
            each["key"] != KEY
            for each in json.loads(_said(lambda: tidying.prune_caches(True, True)))
        )

    def _lines(self, victim: Path):
        run = Run(victim)
        for path in (run.metrics, run.folder / "votes.jsonl"):
            with suppress(OSError, ValueError):
                json.dumps(
                    [
                        read_jsonl(path),
                        read_metrics(path),
                        [str(each) for each in tally_votes(read_votes(path))],
                    ]
                )
        reader = ProgressReader(run, "train")
        reader.earlier_metrics, reader.phases.offset = None, 0
        _check(str(reader.read()))
        _check(str(ProgressReader(run, "compare").read()))

    def _index(self, victim: Path):
        _said(lambda: looking.index(False))
        page = (self.outputs / "index.html").read_text("utf-8")
        assert (
            page.count('/thumbnail.png"') >= 2
            and 'href="alpha/report.html"' in page
            and "zeta" in page
        )
        assert SECRET.hex() not in page and "b2Ygbm9ib2R5" not in page, (
            "a file from elsewhere is shown"
        )

    def _plan(self, victim: Path):
        def planned():
            with report_errors():
                run = places.find_run(victim.name)
                print_result(plan(run, requested(run)[1]), [], True)

        _said(planned)

    def _harm(self, rng: Random, victim: Path):
        if rng.random() < 0.06:
            victim.symlink_to(
                rng.choice(("alpha", victim.name, "../secret", "/", "nowhere", "/dev/zero"))
            )
            return
        self._fill(victim, "running")
        if rng.random() < 0.15:
            _replace(rng, self.outputs / "cache" / KEY / META, self.meta)
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            name = rng.choice(("run.json",) * 9 + RECORDS)
            path = victim / name
            with suppress(OSError):  # below what an earlier harm has made a file or a circle
                _erase(path)  # or a link of an earlier harm would be written through
                if name.endswith(".png") and rng.random() < 0.7:
                    path.write_bytes(_picture(rng))
                elif name.endswith("jsonl"):
                    path.write_bytes(b"\n".join(_bytes(rng, LINE) for _ in range(3)) + b"\n")
                elif name.endswith("lock"):
                    path.write_bytes(_bytes(rng, HOLDER))
                else:
                    _replace(rng, path, self.record)

    def _fill(self, folder: Path, status: str):
        (folder / "compare" / "pictures").mkdir(parents=True)
        told = {stage: {"run": "x"} | PARAMETERS[stage] for stage in STAGES}
        known = {
            "status": "done",
            "started": "2026-01-01T10:00:00+00:00",
            "seconds": 61.0,
            "inputs": {"code": "0" * 64},
        }
        known |= {
            "outputs": {"report.html": "0" * 64},
            "loss": 0.25,
            "held_out_loss": [1.0, 0.5],
            "dropped": {"small": 2},
        }
        stages = {stage: known | {"parameters": parameters} for stage, parameters in told.items()}
        for parameters in told.values():
            parameters.pop("run")
        record = {
            "name": folder.name,
            "status": status,
            "versions": {"torch": "2"},
            "machine": {"cpu": "x"},
            "commit": None,
        }
        record |= {"asked": {"recipe": "demo"} | told, "stages": stages}
        (folder / "run.json").write_text(json.dumps(record))
        Image.new("RGB", (8, 8)).save(folder / "compare" / "pictures" / "p00_s0_tuned.png")
        (folder / "report.html").write_text("")
        (folder / "cache").symlink_to(f"../cache/{KEY}")

    def _restore(self):
        path = self.outputs / "cache" / KEY / META
        _erase(path)
        path.write_text(json.dumps(self.meta))

    def _clear(self):
        for name in os.listdir(self.outputs):
            if name not in ("alpha", "zeta", "cache"):
                _erase(self.outputs / name)
        self._restore()

    @contextmanager
    def _here(self):
        before = places.ROOT, files.ROOT, logging.disable
        places.ROOT = files.ROOT = self.root
        logging.disable = lambda: (
            None
        )  # which a command does for good, and which takes longer than most cases
        caches = patch.dict(
            os.environ, {"XDG_CACHE_HOME": str(self.root)}
        )  # `gc` looks there for compiled extensions
        try:
            with caches:
                yield
        finally:
            places.ROOT, files.ROOT, logging.disable = before


PARAMETERS = {
    "prepare": {"source": "demo", "seed": 0},
    "train": {"steps": 5, "rank": 4, "learning_rate": 1e-4, "teacher": "live"},
    "compare": {
        "prompts": ["a cat"],
        "seeds": [0, 1],
        "contenders": ["unguided", "guided", "tuned"],
    },
}
LINE = {
    "step": 5,
    "loss": 0.5,
    "seconds": 1.0,
    "left": "tuned",
    "right": "guided",
    "choice": 1,
    "made": {"tuned": "a"},
}
HOLDER = {
    "pid": 1,
    "begun": "5",
    "parent": 1,
    "host": files.HOST,
    "since": "2026",
    "what": "onepass run",
}


def _said(command: Callable[[], Any]) -> str:
    """Return what a command prints, which has to be harmless."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), suppress(typer.Exit):
        command()
    for each in (out, err):
        _check(each.getvalue())
    return out.getvalue()


def _check(text: str):
    text.encode()
    assert not (bad := set(re.findall("[\0-\t\x0b-\x1f\x7f-\x9f\u2028\u2029\u202e]", text))), (
        f"{text[:200]!r} holds {bad}"
    )


def _meta(store: Path) -> dict[str, Any]:
    listed = {"latents/a.safetensors": file_hash(store / "latents" / "a.safetensors")}
    numbers = {name: 3 for name in ("resolution", "examples", "captions", "captions_cut")}
    return numbers | {
        "key": KEY, "base": "embedded", "base_hash": "0", "text_shape": [5, 8],
        "shapes": {"4 8 8": 3}, "shards": [{"name": "a", "rows": 3, "shape": [4, 8, 8]}],
        "texts": [{"name": "t", "rows": 3}], "negative": "", "answers": None, "images": True,
        "spaces": {"latents": "s"}, "files": listed,
    }  # fmt: skip


def _bytes(rng: Random, value: Any) -> bytes:
    """Return JSON with something hostile in it."""
    way = rng.randrange(8)
    if way < 5:
        return json.dumps(_mutated(rng, value)).encode()
    text = json.dumps(value).encode()
    if way == 5:
        return damaged(rng, text)
    deep = rng.choice((39, 41, 500, 100_000))
    return rng.choice((
        b"[" * deep, b"[" * deep + b"]" * deep, b'{"a":' * deep + b"1" + b"}" * deep,
        text[:-1] + b', "status": 5}', b"", b"\xef\xbb\xbf" + text, text.decode().encode("utf-16"),
        b"null", b"9" * 10_000, b'"\xff"', b"\0" * 4096,
    ))  # fmt: skip


def _mutated(rng: Random, value: Any) -> Any:
    """Return a value in which one part, at any depth, is a hostile one, or has a hostile name."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.15:
        return _hostile(rng)
    if isinstance(value, list):
        place = rng.randrange(len(value))
        return [*value[:place], _mutated(rng, value[place]), *value[place + 1 :]]
    name = rng.choice(list(value))
    if rng.random() < 0.1:
        return value | {rng.choice(TEXTS): value[name]}
    return value | {name: _mutated(rng, value[name])}


def _hostile(rng: Random) -> Any:
    deep: Any = "bottom"
    for _ in range(rng.choice((1, 5, 35))):
        deep = rng.choice(([deep], {"a": deep}, {rng.choice(ESCAPES): deep}))
    return rng.choice(
        (
            rng.choice(TEXTS),
            rng.choice(TEXTS),
            rng.choice(NUMBERS),
            None,
            [],
            {},
            deep,
            [0] * 1000,
            ["\x1b[2J"],
        )
    )


def _replace(rng: Random, path: Path, value: Any):
    """Put something else in the place of a file or folder."""
    _erase(path)
    way = rng.randrange(20)
    if way == 0:
        os.mkfifo(path)
    elif way == 1:
        path.mkdir()
    elif way == 2:
        path.symlink_to(
            rng.choice(
                (path.name, "nowhere", "/dev/zero", "../../secret", "../../../secret", "..", "/")
            )
        )
    elif way == 3:
        with path.open("wb") as file:
            file.truncate(rng.choice((1 << 20, 17 << 20, 1 << 40)))
    elif way > 4:
        path.write_bytes(_bytes(rng, value))


def _picture(rng: Random) -> bytes:
    """Return a PNG that is damaged, or claims to be huge."""
    side = rng.choice((0, 1, 97, 5000, 60_000, 0x7FFFFFFF, 0xFFFFFFFF))
    chunks = [
        (
            b"IHDR",
            struct.pack(
                ">IIBBBBB", side, side, rng.choice((1, 8, 77)), rng.choice((0, 2, 3, 6)), 0, 0, 0
            ),
        )
    ]
    chunks += [(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 21)))] * (rng.random() < 0.2)
    chunks += [(b"IDAT", zlib.compress(bytes(rng.choice((1, 1 << 16, 1 << 20)))))] * (
        rng.random() < 0.8
    ) + [(b"IEND", b"")]
    data = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    return (
        damaged(rng, b"\x89PNG\r\n\x1a\n" + data)
        if rng.random() < 0.3
        else b"\x89PNG\r\n\x1a\n" + data
    )


def _erase(path: Path):
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
