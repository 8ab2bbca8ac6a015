"""One cache, prepared by two hosts with addresses of their own."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nbs_lib.cache.format import META, Cache
from nbs_lib.config import Prepare
from nbs_lib.prepare import open_cache, prepare
from nbs_lib.run.run import Run

pytestmark = pytest.mark.slow

TEACHER = {"max_examples": 300, "teacher_cache": "data", "teacher_samples": 1}
MANY = {"max_examples": 2500}  # in twenty shards


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., Prepare]:
    """The parameters of a run in a project of its own."""

    def build(project: str, **changes) -> Prepare:
        folder = tmp_path / project / "outputs" / "run"
        return Prepare(**{"run": str(folder), "num_processes": 1} | changes)

    return build


@pytest.fixture
def start(config, start_training, network) -> Callable:
    """`start(host, project)`: the preparation on one of two hosts."""

    def call(host: int, project: str = "two", **changes):
        placed = config(project, **changes | network.place(host))
        return start_training(placed, network=network.names[host])

    return call


def content(cache: Cache) -> dict[str, bytes]:
    paths = [path for path in cache.folder.rglob("*") if path.is_file()]
    return {path.relative_to(cache.folder).as_posix(): path.read_bytes() for path in paths}


def stored(store: Path) -> dict[str, int]:
    """Return the inodes of the latents' shards that a build has written, by their names."""
    shards = store.glob(".building-*/latents/*.safetensors")
    return {path.name: path.stat().st_ino for path in shards if not path.name.startswith(".")}


def test_two_hosts_make_the_cache_of_one(config, start, start_training):
    hosts = [start(host, **TEACHER) for host in (1, 0)]
    assert [host.wait() for host in hosts] == [0, 0], hosts[0].output + hosts[1].output
    two = Run(config("two").run)
    one = prepare(config("one", **TEACHER))
    cache = open_cache(two.cache)
    assert content(cache) == content(one.cache) and cache.meta["answers"]
    record = two.stage_record("prepare")
    assert (record["encoded"], record["looked_at"]) == (300, 300)
    assert [path.name for path in two.cache_store.glob(".building*")] == []
    tables = ("kept.parquet", "dropped.parquet")
    for name in tables:
        ours, theirs = ((run.folder / "prepare" / name).read_bytes() for run in (two, one.run))
        assert ours == theirs
    # a run beside it, on both hosts: nothing is encoded, and neither waits for the other
    again = [start(host, **TEACHER, replace=True, seed=0) for host in (0, 1)]
    assert [host.wait() for host in again] == [0, 0], again[0].output + again[1].output
    assert two.stage_record("prepare")["reused"]


def test_a_host_alone_finishes_what_two_began(config, start):
    hosts = [start(host, **MANY) for host in (0, 1)]
    run = Run(config("two").run)
    end = time.monotonic() + 200
    while len(stored(run.cache_store)) < 4:
        assert time.monotonic() < end and hosts[0].poll() is None, hosts[0].output
        time.sleep(0.02)
    os.killpg(hosts[1].pid, signal.SIGKILL)
    lost = time.monotonic()
    assert hosts[0].wait(120) != 0 and time.monotonic() - lost < 60
    assert "host 1 is gone" in hosts[0].output and "goes on where it was" in hosts[0].output
    assert run.stage_record("prepare")["status"] == "failed"
    before = stored(run.cache_store)
    result = prepare(config("two", **MANY))
    assert result.built.encoded == 2500 - sum(rows_of(result.cache, before))
    after = {path.name: path.stat().st_ino for path in result.cache.folder.glob("latents/*")}
    assert before.items() <= after.items() and len(after) == 20
    assert content(result.cache) == content(prepare(config("one", **MANY)).cache)


def rows_of(cache: Cache, shards: dict[str, int]) -> list[int]:
    """Return the rows of some of a cache's shards."""
    return [
        shard["rows"] for shard in cache.meta["shards"] if f"{shard['name']}.safetensors" in shards
    ]


def test_hosts_with_other_parameters_are_refused(config, start):
    hosts = [start(host, max_examples=[20, 30][host]) for host in (0, 1)]
    assert all([host.wait(120) for host in hosts])
    message = "host 1 was given max_examples 30, host 0 20; give both the same"
    assert message in hosts[0].output + hosts[1].output
    assert not (Run(config("two").run).cache / META).exists()
