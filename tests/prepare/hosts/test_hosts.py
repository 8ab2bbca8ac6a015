"""One cache, prepared by two hosts with addresses of their own."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nbs_lib.cache.format import META, Cache
from nbs_lib.config import Prepare
from nbs_lib.prepare import open_cache, prepare
from nbs_lib.run.run import Run

pytestmark = pytest.mark.slow

TEACHER = {"max_examples": 300, "teacher_cache": "data", "teacher_samples": 1}
MANY = {"max_examples": 1500}  # in twelve shards


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


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Cache:
    """The cache of MANY, made by one host in a project of its own."""
    folder = tmp_path_factory.mktemp("one") / "outputs" / "run"
    return prepare(Prepare(run=str(folder), **MANY)).cache


def wait_for_shards(run: Run, host: Any, cache: Cache, hosts: int):
    """Wait until each of the hosts has written two shards of a cache."""
    names = [f"{shard['name']}.safetensors" for shard in cache.meta["shards"]]
    shares = [set(names[number::hosts]) for number in range(hosts)]
    end = time.monotonic() + 200
    while min(len(share & stored(run.cache_store).keys()) for share in shares) < 2:
        assert time.monotonic() < end and host.poll() is None, host.output
        time.sleep(0.02)


def check_finished(run: Run, before: dict[str, int], expected: Cache):
    """Check that a cache is complete, and that no shard that was there was encoded again."""
    cache = open_cache(run.cache)
    assert 2 <= len(before) < len(cache.meta["shards"])
    rest = [
        row["rows"] for row in cache.meta["shards"] if f"{row['name']}.safetensors" not in before
    ]
    assert run.stage_record("prepare")["encoded"] == sum(rest)
    after = {path.name: path.stat().st_ino for path in run.cache.glob("latents/*")}
    assert before.items() <= after.items()
    assert content(cache) == content(expected)


def test_a_host_that_is_left_finishes_what_two_began(config, start, many):
    run = Run(config("two").run)
    hosts = [start(host, **MANY) for host in (0, 1)]
    wait_for_shards(run, hosts[0], many, 2)
    os.killpg(hosts[1].pid, signal.SIGKILL)
    lost = time.monotonic()
    assert hosts[0].wait(120) != 0 and time.monotonic() - lost < 60
    assert "host 1 is gone" in hosts[0].output and "goes on where it was" in hosts[0].output
    assert run.stage_record("prepare")["status"] == "failed"
    before = stored(run.cache_store)
    prepare(config("two", **MANY))
    check_finished(run, before, many)


def test_a_host_that_is_added_finishes_what_one_began(config, start, start_training, many):
    run = Run(config("two").run)
    alone = start_training(config("two", **MANY))
    wait_for_shards(run, alone, many, 1)
    os.killpg(alone.pid, signal.SIGKILL)
    alone.wait(20)
    before = stored(run.cache_store)
    hosts = [start(host, **MANY) for host in (0, 1)]
    assert [host.wait() for host in hosts] == [0, 0], hosts[0].output + hosts[1].output
    check_finished(run, before, many)


def test_hosts_with_other_parameters_are_refused(config, start):
    hosts = [start(host, max_examples=[20, 30][host]) for host in (0, 1)]
    assert all([host.wait(120) for host in hosts])
    message = "host 1 was given max_examples 30, host 0 20; give both the same"
    assert message in hosts[0].output + hosts[1].output
    assert not (Run(config("two").run).cache / META).exists()
