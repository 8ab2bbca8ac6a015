"""Equal results of killed and resumed runs: benchmarks/kills.py, with two moments."""

import subprocess
import sys

import pytest

from nbs_lib.files import ROOT

pytestmark = pytest.mark.slow


def test_a_run_killed_at_random_moments_ends_the_same():
    command = [sys.executable, "-W", "ignore", "benchmarks/kills.py", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 of 4 ended done" in done.stdout, "two at ZeRO 0 and two at ZeRO 2"
