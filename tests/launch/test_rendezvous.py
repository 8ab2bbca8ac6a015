"""The addresses on which a training listens: no other machine can reach one of one host."""

import ipaddress
import os
import signal
import time
from contextlib import suppress

import psutil
import pytest

from nbs_lib.config import Train
from nbs_lib.run.run import Run

pytestmark = pytest.mark.slow


def listening(pid: int) -> set[tuple[str, int]]:
    """Return the addresses on which a process and its children listen."""
    addresses = set()
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            addresses |= {
                tuple(connection.laddr)
                for connection in process.net_connections("inet")
                if connection.status == psutil.CONN_LISTEN
            }
    return addresses


def wait_for_a_step(run: Run, kernel):
    end = time.monotonic() + 200
    while not run.metrics.exists() or '"loss"' not in run.metrics.read_text():
        assert kernel.poll() is None and time.monotonic() < end, kernel.output
        time.sleep(0.02)


@pytest.mark.parametrize(
    "options",
    [
        {"zero_stage": 2},
        {"launcher": "subprocess", "deepspeed": False},
        {"num_processes": 1, "zero_stage": 0},
    ],
    ids=["forked", "afresh", "one process"],
)
def test_a_training_on_one_host_listens_on_the_loopback_only(
    new_run, prepared_tiny, start_training, options
):
    run = new_run(prepared_tiny)
    small = {
        "steps": 10_000,
        "batch_size": 1,
        "log_every": 1,
        "validation_steps": 0,
        "checkpointing_steps": 0,
        "num_processes": 2,
    }
    kernel = start_training(Train(str(run.folder), **small | options))
    wait_for_a_step(run, kernel)
    addresses = listening(kernel.pid)
    os.killpg(kernel.pid, signal.SIGKILL)
    assert addresses, "the processes meet somewhere"
    assert [
        address for address in addresses if not ipaddress.ip_address(address[0]).is_loopback
    ] == []
