"""Two hosts, each with an address and a network of its own: two network namespaces, joined by a cable that can be cut."""

import json
import os
import subprocess
import sys
import time

import pytest

from nbs_lib.adapter import WEIGHTS
from nbs_lib.config import Prepare, Train
from nbs_lib.files import ROOT
from nbs_lib.parameters import as_parameters
from nbs_lib.prepare import prepare
from nbs_lib.run import Run

TRAIN = """
import sys, json
from nbs_lib.config import Train
from nbs_lib.train import train
done = train(Train(**json.loads(sys.argv[1])))
print("learned", done.weights, done.loss)
"""
NAMES, ADDRESSES = ("onepass-a", "onepass-b"), ("10.77.0.1", "10.77.0.2")
SMALL = {"steps": 8, "batch_size": 2, "log_every": 1, "checkpoint_every": 2, "validate_every": 4, "held_out": 4}


def ip(*arguments: str):
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


@pytest.fixture
def network():
    """Skipped where no network can be made; in CI it can, so there it fails."""
    try:
        for name in NAMES:
            ip("netns", "add", name)
        ip("link", "add", "onepass0", "netns", NAMES[0], "type", "veth", "peer", "name", "onepass0", "netns", NAMES[1])
        for name, address in zip(NAMES, ADDRESSES, strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "onepass0")
            for link in ("lo", "onepass0"):
                ip("-n", name, "link", "set", link, "up")
        yield
    except OSError as failure:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no network of two hosts can be made here: {failure}")
    finally:
        for name in NAMES:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Run:
    return prepare(Prepare(str(tmp_path_factory.mktemp("runs") / "prepared"), count=16)).run


def a_run(prepared: Run, name: str) -> Run:
    run = Run(prepared.folder.parent / name)
    run.folder.mkdir()
    run.cache.symlink_to(prepared.cache.resolve())
    run.update(stages={"prepare": prepared.stage_record("prepare")})
    return run


def start(run: Run, host: int | None = None, **how) -> subprocess.Popen:
    """A training of one process on a host of two, or of two processes on one."""
    place = {"processes": 2}
    if host is not None:
        place = {"processes": 1, "num_nodes": 2, "node_rank": host, "master_addr": ADDRESSES[0], "master_port": 29511}
    config = Train(str(run.folder), **SMALL | place | how)
    command = [sys.executable, "-W", "ignore", "-c", TRAIN, json.dumps(as_parameters(config))]
    if host is not None:
        command = ["ip", "netns", "exec", NAMES[host], *command]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_two_hosts_end_in_the_adapter_of_one_with_two_processes(prepared, network):
    one, two = a_run(prepared, "one host"), a_run(prepared, "two hösts")
    process = start(one)
    assert process.wait(240) == 0, process.stdout.read()
    hosts = [start(two, host) for host in (1, 0)]
    said = [host.communicate(timeout=240)[0] for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], "\n".join(said)
    assert all(f"learned {two.adapter}" in each for each in said)
    record = two.stage_record("train")
    assert record["nodes"] == record["processes"] == 2 and record["parameters"]["node_rank"] == 0
    assert (one.adapter / WEIGHTS).read_bytes() == (two.adapter / WEIGHTS).read_bytes()


def test_a_host_is_lost_and_the_other_ends_with_a_word_and_goes_on_alone(prepared, network):
    run, whole = a_run(prepared, "lost"), a_run(prepared, "never lost")
    hosts = [start(run, host, steps=30, checkpoint_every=2) for host in (0, 1)]
    end = time.monotonic() + 200
    while not list(run.checkpoints.glob("step-*4")):
        assert time.monotonic() < end and hosts[0].poll() is None, hosts[0].stdout.read()
        time.sleep(0.05)
    ip("-n", NAMES[1], "link", "set", "onepass0", "down")  # no goodbye: packets are lost from here on
    lost = time.monotonic()
    said = hosts[0].communicate(timeout=120)[0]
    assert time.monotonic() - lost < 60
    assert hosts[0].returncode != 0 and "host 1 is gone: it ended, or cannot be reached; start again" in said, said
    assert run.stage_record("train")["status"] == "failed" and "host 1 is gone" in run.stage_record("train")["error"]
    assert hosts[1].wait(60) != 0 and "host 0 is gone" in hosts[1].stdout.read()
    alone, never_lost = start(run, steps=30), start(whole, steps=30)
    assert [process.wait(240) for process in (alone, never_lost)] == [0, 0], alone.stdout.read() + never_lost.stdout.read()
    assert run.stage_record("train")["resumed_from"] >= 4
    assert (run.adapter / WEIGHTS).read_bytes() == (whole.adapter / WEIGHTS).read_bytes()


def test_hosts_that_do_not_mean_the_same_training_are_told(prepared, network):
    run = a_run(prepared, "differing")
    hosts = [start(run, host, lr=[1e-3, 2e-3][host]) for host in (0, 1)]
    said = [host.communicate(timeout=120)[0] for host in hosts]
    assert all(host.returncode for host in hosts)
    assert "host 1 was given lr 0.002, host 0 0.001; give both the same" in said[0] + said[1]
