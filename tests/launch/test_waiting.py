"""A further host that waits for host 0."""

import threading

import pytest

from nbs_lib.launch.errors import LaunchError
from nbs_lib.launch.waiting import await_end
from nbs_lib.run.run import Run


def test_a_host_that_works_is_waited_for_and_a_killed_one_is_not(run_folder):
    run = Run(run_folder)
    run.update(stages={"prepare": {"status": "running"}})
    with run.exclusive():
        finish = threading.Timer(1, run.update_stage, ["prepare"], {"status": "done", "more": True})
        finish.start()
        assert await_end(run, "prepare")["more"]
        finish.join()
    # a killed host leaves its record as it was, and no lock
    run.update_stage("prepare", status="running")
    with pytest.raises(LaunchError, match="did not come to its end: it was interrupted or killed"):
        await_end(run, "prepare")
    run.update_stage("prepare", status="failed", error="SourceError: nothing there")
    with pytest.raises(LaunchError, match="did not come to its end: SourceError: nothing there"):
        await_end(run, "prepare")
