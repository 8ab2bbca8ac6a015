"""All caches: listed, verified, pruned; by the command, too."""

import fcntl
import json
import shutil

import pytest
from typer.testing import CliRunner

from nbs_lib import commands, files
from nbs_lib.prepare import prepare
from nbs_lib.prepare.store import prune, stored, verify
from nbs_lib.run import Run


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
    told = {each.key: each for each in stored(folder)}
    assert told[used].runs == ["run"] and told[used].examples == 3 and told[used].base == "embedded"
    assert told[other].runs == [] and told[".building-0123456789abcdef"].bytes == 3000
    shared = sum(path.stat().st_size for path in (folder / used / "texts").iterdir())
    whole = {key: sum(path.stat().st_size for path in (folder / key).rglob("*") if path.is_file()) for key in (used, other)}
    assert told[used].bytes + told[other].bytes == sum(whole.values()) - shared - 61592, "files that both have count once"
    would = prune(folder, only_say=True)
    assert {each.key for each in would} == {other, ".building-0123456789abcdef"} and (folder / other).exists()
    with (folder / ".building-0123456789abcdef.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert prune(folder) == [], "what is being built stays, and what it may take from"
    assert {each.key for each in prune(folder)} == {other, ".building-0123456789abcdef"}
    assert verify(folder) == {used: []}


def test_the_command_says_the_same(store, monkeypatch):
    folder, used, other = store
    monkeypatch.setattr(files, "ROOT", folder.parent.parent)
    assert folder.parent.name == "outputs"

    def call(*arguments: str):
        return CliRunner().invoke(commands.app, ["cache", *arguments])

    assert f"{used[:16]}" in call("list").output and "used by no run" in call("list").output
    assert {each["key"] for each in json.loads(call("list", "--json").output)} >= {used, other}
    assert call("verify").exit_code == 0
    latents = next((folder / other / "latents").iterdir())
    latents.write_bytes(b"x")
    damaged = call("verify")
    assert damaged.exit_code == 1 and f"{other[:16]}  latents/{latents.name}: missing or damaged" in damaged.output
    assert "2 would be removed" in call("prune", "--dry-run").output and "2 removed" in call("prune").output
    assert [each["key"] for each in json.loads(call("list", "--json").output)] == [used]
