"""Two hosts that train together, and one of them lost."""

import socket
import time
from pathlib import Path

import pytest

from nbs_lib.config import Train
from nbs_lib.models.lora.metadata import LORA_FILE
from nbs_lib.run.run import Run

pytestmark = pytest.mark.slow

SMALL = {
    "steps": 8,
    "batch_size": 2,
    "log_every": 1,
    "checkpointing_steps": 2,
    "validation_steps": 4,
    "validation_examples": 4,
}
STEPS = 60  # of a training that loses a host after a few


@pytest.fixture
def start(start_training, network):
    """`start(run, host)`: one process on one of two hosts; `start(run)`: two on one host."""

    def call(run: Run, host: int | None = None, **options):
        if host is None:
            return start_training(Train(str(run.folder), **SMALL | {"num_processes": 2} | options))
        location = {"num_processes": 1} | network.place(host)
        return start_training(
            Train(str(run.folder), **SMALL | location | options), network=network.names[host]
        )

    return call


def listening(pid: int) -> set[str]:
    """The addresses on which anything listens in the network of a process."""
    lines = [
        line.split()
        for kind in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{kind}").read_text().splitlines()[1:]
    ]
    encoded = [bytes.fromhex(line[1].split(":")[0]) for line in lines if line[3] == "0A"]
    return {
        socket.inet_ntoa(location[::-1]) if len(location) == 4 else location.hex()
        for location in encoded
    }


def test_two_hosts_train_the_same_adapter_as_one(new_run, prepared_tiny, start, network):
    one, two = new_run(prepared_tiny), new_run(prepared_tiny)
    alone = start(one)
    assert alone.wait() == 0, alone.output
    hosts = [start(two, host) for host in (1, 0)]
    assert [host.wait() for host in hosts] == [0, 0], hosts[0].output + hosts[1].output
    record = two.stage_record("train")
    assert record["nodes"] == record["processes"] == 2 and record["parameters"]["node_rank"] == 0
    assert (one.adapter / LORA_FILE).read_bytes() == (two.adapter / LORA_FILE).read_bytes()


def test_a_lost_host_is_named_and_the_other_resumes_alone(new_run, prepared_tiny, start, network):
    run, uninterrupted = new_run(prepared_tiny), new_run(prepared_tiny)
    hosts = [start(run, host, steps=STEPS) for host in (0, 1)]
    end = time.monotonic() + 200
    while not list(run.checkpoints.glob("step-*4")):
        assert time.monotonic() < end and hosts[0].poll() is None, hosts[0].output
        time.sleep(0.05)
    assert listening(hosts[0].pid) == {network.addresses[0]}, "on no other network"
    network.cut(1)
    lost = time.monotonic()
    never_lost = start(uninterrupted, steps=STEPS)
    assert (
        hosts[0].wait(120) != 0
        and "host 1 is gone: it ended, or cannot be reached; start again" in hosts[0].output
    )
    assert time.monotonic() - lost < 60
    assert (
        run.stage_record("train")["status"] == "failed"
        and "host 1 is gone" in run.stage_record("train")["error"]
    )
    assert hosts[1].wait(60) != 0 and "host 0 is gone" in hosts[1].output
    alone = start(run, steps=STEPS)
    assert [kernel.wait() for kernel in (alone, never_lost)] == [0, 0], (
        alone.output + never_lost.output
    )
    assert run.stage_record("train")["resumed_from"] >= 4
    assert (run.adapter / LORA_FILE).read_bytes() == (
        uninterrupted.adapter / LORA_FILE
    ).read_bytes()


def test_hosts_with_other_parameters_are_refused(new_run, prepared_tiny, start, network):
    run = new_run(prepared_tiny)
    hosts = [start(run, host, learning_rate=[1e-3, 2e-3][host]) for host in (0, 1)]
    assert all([host.wait(120) for host in hosts])
    assert (
        "host 1 was given learning_rate 0.002, host 0 0.001; give both the same"
        in hosts[0].output + hosts[1].output
    )
