"""Equal results of killed and resumed runs: benchmarks/kills.py, with one run at ZeRO 2.

A run at ZeRO 0, the demo's, is killed in each of its stages in test_end_to_end.py.
"""

import subprocess
import sys

import pytest

from nbs_lib.files import ROOT

pytestmark = pytest.mark.slow


def test_a_run_killed_at_random_moments_ends_the_same():
    arguments = ["1", "--kills", "2", "--zero-stages", "2"]
    command = [sys.executable, "-W", "ignore", "benchmarks/kills.py", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 1 ended done" in done.stdout
    assert "'resumed': True" in done.stdout and "'earlier': [" in done.stdout
