"""What a training listens on while it trains, all of its processes: nobody on another machine can reach one of one host."""

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
    """Where a process and all that it started listen."""
    found = set()
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            found |= {
                tuple(each.laddr)
                for each in process.net_connections("inet")
                if each.status == psutil.CONN_LISTEN
            }
    return found


def wait_for_a_step(run: Run, kernel):
    end = time.monotonic() + 200
    while not run.metrics.exists() or '"loss"' not in run.metrics.read_text():
        assert kernel.poll() is None and time.monotonic() < end, kernel.said
        time.sleep(0.02)


@pytest.mark.parametrize(
    "how",
    [
        {"zero_stage": 2},
        {"launcher": "subprocess", "deepspeed": False},
        {"num_processes": 1, "zero_stage": 0},
    ],
    ids=["forked", "afresh", "one process"],
)
def test_a_training_on_one_host_listens_on_the_loopback_only(
    new_run, prepared_tiny, start_training, how
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
    kernel = start_training(Train(str(run.folder), **small | how))
    wait_for_a_step(run, kernel)
    places = listening(kernel.pid)
    os.killpg(kernel.pid, signal.SIGKILL)
    assert places, "the processes meet somewhere"
    assert [place for place in places if not ipaddress.ip_address(place[0]).is_loopback] == []
