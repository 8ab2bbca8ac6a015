"""The index of a store: its two tables, and an index that is damaged, old or in use."""

import sqlite3
from pathlib import Path

import pytest

from nbs_lib.prepare.examples import InFile
from nbs_lib.prepare.filters import ImageInfo
from nbs_lib.prepare.images import NO_FILE
from nbs_lib.prepare.store import database as database_module
from nbs_lib.prepare.store.database import NAME, Database
from nbs_lib.prepare.store.image_index import ImageIndex
from nbs_lib.prepare.store.receipts import Receipt, Receipts

IMAGE = InFile(Path("/images/a\udcff.png"))
INFO = ImageInfo(b"digest", 640, 480, 2**64 - 1)


@pytest.fixture
def database(tmp_path) -> Database:
    database = Database(tmp_path)
    yield database
    database.close()


def test_an_image_is_found_again_while_its_stamp_and_the_code_stay(database):
    index = ImageIndex(database, "code")
    index.remember([(IMAGE, "stamp", INFO)])
    assert index.find([IMAGE], ["stamp"], hashed=True) == [INFO]
    assert index.find([IMAGE], ["another"], hashed=True) == [None]
    assert ImageIndex(database, "other code").find([IMAGE], ["stamp"], hashed=True) == [None]


def test_images_without_a_stamp_and_transient_faults_are_not_remembered(database):
    index = ImageIndex(database, "code")
    index.remember([(IMAGE, "", INFO)])
    index.remember([(IMAGE, "stamp", ImageInfo(fault=NO_FILE))])
    assert index.find([IMAGE, IMAGE], ["", "stamp"], hashed=False) == [None, None]


def test_an_entry_without_a_perceptual_hash_does_not_serve_if_one_is_needed(database):
    index = ImageIndex(database, "code")
    plain = ImageInfo(b"digest", 640, 480)
    index.remember([(IMAGE, "stamp", plain)])
    assert index.find([IMAGE], ["stamp"], hashed=False) == [plain]
    assert index.find([IMAGE], ["stamp"], hashed=True) == [None]
    fault = ImageInfo(fault="not an image of a known format")
    index.remember([(IMAGE, "stamp", fault)])
    assert index.find([IMAGE], ["stamp"], hashed=True) == [fault]


def test_a_damaged_index_begins_again_empty(database, tmp_path):
    (tmp_path / NAME).write_bytes(b"no database" * 1000)
    index = ImageIndex(database, "code")
    assert index.find([IMAGE], ["stamp"], hashed=False) == [None]
    index.remember([(IMAGE, "stamp", INFO)])
    assert index.find([IMAGE], ["stamp"], hashed=False) == [INFO]


def test_indexes_of_older_versions_are_ignored(database, tmp_path):
    old = sqlite3.connect(tmp_path / "seen.sqlite")
    old.execute("CREATE TABLE seen (place TEXT, code TEXT)")
    old.close()
    (tmp_path / ".receipts" / "request").mkdir(parents=True)
    (tmp_path / ".receipts" / "request" / "receipt.json").write_text('{"stamp": "s", "key": "k"}')
    assert Receipts(tmp_path, database).find("request", "s") is None
    assert ImageIndex(database, "code").find([IMAGE], ["stamp"], hashed=False) == [None]


def test_an_index_in_use_ends_nothing_and_is_reported(database, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(database_module, "PATIENCE", 0)
    index = ImageIndex(database, "code")
    index.remember([(IMAGE, "stamp", INFO)])
    database.close()
    other = sqlite3.connect(tmp_path / NAME, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    index.remember([(IMAGE, "new stamp", INFO)])
    assert "locked" in capsys.readouterr().out
    other.execute("ROLLBACK")
    other.close()
    assert index.find([IMAGE], ["stamp"], hashed=False) == [INFO]


def test_a_receipt_holds_for_its_request_and_stamp_and_replaces_the_older_one(database, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "kept.parquet").write_text("first")
    (run / "notes.txt").write_text("mine")
    receipts = Receipts(tmp_path, database)
    first = Receipt("key", {"caption is empty": 2}, more=True)
    receipts.write("request", "stamp", first, run)
    assert receipts.find("request", "stamp") == first
    assert receipts.find("request", "") is receipts.find("other", "stamp") is None
    other = tmp_path / "other"
    receipts.copy_files("request", "stamp", other)
    assert [path.name for path in other.iterdir()] == ["kept.parquet"]
    receipts.write("request", "new stamp", Receipt("new", {}, more=False), run)
    assert receipts.find("request", "stamp") is None
    assert len(list((tmp_path / ".receipts").iterdir())) == 1


def test_a_receipt_without_its_files_or_its_cache_is_forgotten(database, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    receipts = Receipts(tmp_path, database)
    for request in ("one", "two"):
        receipts.write(request, "stamp", Receipt(request, {}, more=False), run)
    (tmp_path / ".receipts" / "unknown").mkdir()
    receipts.forget_without({"two"})
    assert receipts.find("one", "stamp") is None
    assert [path.name for path in (tmp_path / ".receipts").iterdir()] == ["two-stamp"]
    (tmp_path / ".receipts" / "two-stamp").rmdir()
    assert receipts.find("two", "stamp") is None
