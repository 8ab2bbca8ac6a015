"""A training that is interrupted as a kernel is: by SIGINT to it and to its group."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest

from nbs_lib.files import ROOT
from nbs_lib.run.run import Run

pytestmark = pytest.mark.slow

KERNEL = r"""
import json, os, signal, sys, time
from nbs_lib.config import Train
from nbs_lib.run.run import Run
from nbs_lib.train import train

config = Train(**json.loads(sys.argv[1]))
taken = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
handlers = [signal.getsignal(each) for each in taken]
try:
    train(config)
except BaseException as ended:
    result = {"message": ended._render_traceback_(), "ended": time.time()}
    result["record"] = Run(config.run).stage_record("train")
result["handlers"] = handlers == [signal.getsignal(each) for each in taken]
print("\n" + json.dumps(result), flush=True)
again = train(config)
print("\n" + json.dumps({"resumed_from": again.resumed_from}), flush=True)
"""


@pytest.mark.parametrize("launcher", ["notebook", "subprocess"])
def test_an_interrupted_training_saves_and_the_next_cell_resumes(new_run, launcher):
    run = new_run()
    config = {
        "run": str(run.folder),
        "steps": 30,
        "batch_size": 2,
        "log_every": 1,
        "launcher": launcher,
        "validation_steps": 0,
    }
    command = [sys.executable, "-W", "ignore", "-c", KERNEL, json.dumps(config)]
    with open(run.folder / "err", "w") as errors:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
        wait_for_a_step(run, process)
        children = psutil.Process(process.pid).children(recursive=True)
        begun = time.time()
        os.killpg(process.pid, signal.SIGINT)  # a kernel is interrupted with its group
        lines = [line for line in process.stdout if line.startswith("{")]
    assert process.wait(240) == 0, (run.folder / "err").read_text()
    first, again = map(json.loads, lines)
    assert first["ended"] - begun < 5 and first["handlers"]
    [message] = first["message"]  # all that a notebook shows
    assert re.fullmatch(
        r"interrupted: the checkpoint of step \d+ is kept; start again: training goes on from .*",
        message,
    )
    assert "death signal" not in (run.folder / "err").read_text()
    assert first["record"]["status"] == "interrupted" and "error" not in first["record"]
    assert again["resumed_from"] > 0, (
        "from the checkpoint that was saved when it was interrupted; none was due"
    )
    assert not [
        child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE
    ]
    assert not list(run.folder.glob(".launch*")) + list(run.folder.glob(".failed*"))


def wait_for_a_step(run: Run, process: subprocess.Popen):
    end = time.monotonic() + 200
    while not run.metrics.exists() or '"step": 2' not in run.metrics.read_text():
        assert process.poll() is None and time.monotonic() < end, "it ended or took too long"
        time.sleep(0.05)
