"""Caches listed, verified and pruned, also by the command."""

import fcntl
import json
import os
import shutil

import pytest
from typer.testing import CliRunner

from nbs_lib import files
from nbs_lib import prepare as preparing
from nbs_lib.cache.format import META
from nbs_lib.cli.app import app
from nbs_lib.prepare import prepare
from nbs_lib.prepare.store.admin import prune_caches, stored_caches, verify_caches
from nbs_lib.run.run import Run


@pytest.fixture
def store(config, folder):
    """Two caches that share texts, the first of them used by a run, and what a build has left."""
    used = prepare(config())
    other = prepare(config(resolution=32, run=str(Run(config().run).folder.with_name("gone"))))
    shutil.rmtree(other.run.folder)
    left = used.cache.folder.with_name(".building-0123456789abcdef")
    left.mkdir()
    (left / "half").write_bytes(bytes(3000))
    return used.cache.folder.parent, used.cache.folder.name, other.cache.folder.name


def test_caches_are_listed_with_their_runs_and_pruned_without(store):
    folder, used, other = store
    caches = {cache.key: cache for cache in stored_caches(folder)}
    assert (
        caches[used].runs == ["run"]
        and caches[used].examples == 3
        and caches[used].base == "embedded"
    )
    assert caches[other].runs == [] and caches[".building-0123456789abcdef"].bytes == 3000
    shared = sum(path.stat().st_size for path in (folder / used / "texts").iterdir())
    sizes = {
        key: sum(path.stat().st_size for path in (folder / key).rglob("*") if path.is_file())
        for key in (used, other)
    }
    assert caches[used].bytes + caches[other].bytes == sum(sizes.values()) - shared - 61592, (
        "files that both have count once"
    )
    would = prune_caches(folder, dry_run=True)
    assert {cache.key for cache in would} == {other, ".building-0123456789abcdef"} and (
        folder / other
    ).exists()
    with (folder / ".building-0123456789abcdef.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert prune_caches(folder) == [], "what is being built stays, and what it may take from"
    assert {cache.key for cache in prune_caches(folder)} == {other, ".building-0123456789abcdef"}
    assert verify_caches(folder) == {used: []}


def test_the_command_lists_verifies_and_prunes(store, monkeypatch):
    folder, used, other = store
    monkeypatch.setattr(files, "ROOT", folder.parent.parent)
    assert folder.parent.name == "outputs"

    def call(*arguments: str):
        return CliRunner().invoke(app, ["cache", *arguments])

    assert f"{used[:16]}" in call("list").output and "used by no run" in call("list").output
    assert {cache["key"] for cache in json.loads(call("list", "--json").output)} >= {used, other}
    assert call("verify").exit_code == 0
    latents = next((folder / other / "latents").iterdir())
    latents.write_bytes(b"x")
    damaged = call("verify")
    assert (
        damaged.exit_code == 1
        and f"{other[:16]}  latents/{latents.name}: missing or damaged" in damaged.output
    )
    assert (
        "2 would be removed" in call("prune", "--dry-run").output
        and "2 removed" in call("prune").output
    )
    assert [cache["key"] for cache in json.loads(call("list", "--json").output)] == [used]


def test_a_cache_is_not_pruned_before_its_run_has_its_link(config, monkeypatch):
    """No run uses a new cache until the link exists; this test stretches that moment."""
    store, gone = Run(config().run).cache_store, []

    def pruned_first(path, folder):
        gone.extend(prune_caches(store))
        files.link(path, folder)

    monkeypatch.setattr(preparing, "link", pruned_first)
    for _ in range(2):
        assert prepare(config()).cache.folder.is_dir() and gone == []
        Run(config().run).cache.unlink()
    assert [cache.key for cache in prune_caches(store)] == [prepare(config()).cache.meta["key"]]


def test_other_folders_and_files_beside_the_tables_are_left_alone(config):
    run_folder = prepare(config()).run.folder / "prepare"
    (run_folder / "@eaDir").mkdir()
    (run_folder / "notes.txt").write_text("mine")
    assert (
        prepare(config()).built.reused
        and (run_folder / "@eaDir").is_dir()
        and (run_folder / "notes.txt").read_text() == "mine"
    )


@pytest.mark.parametrize(
    "harm", ['{"files": {"../../../../etc/passwd": "0"}}', "[" * 100_000, "5", "pipe"]
)
def test_a_damaged_cache_json_is_reported(config, harm):
    cache = prepare(config()).cache.folder
    (cache / META).unlink()
    os.mkfifo(cache / META) if harm == "pipe" else (cache / META).write_text(harm)
    assert [cache.fault for cache in stored_caches(cache.parent)] == [
        "damaged, or of an older version"
    ]
    assert verify_caches(cache.parent) == {cache.name: [META]}
