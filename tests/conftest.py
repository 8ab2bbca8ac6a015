"""What several rooms' tests need: a run folder, a prepared run, and stages run in a fresh process as a notebook would."""

import subprocess
import sys
from pathlib import Path

import pytest

from nbs_lib.run import ROOT


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A run's folder, in a path with a space and letters beyond ASCII."""
    return tmp_path / "my rüns" / "outputs" / "tiny"


@pytest.fixture
def python():
    """Run Python source in a process of its own: forks and kills happen there, not in the test runner."""

    def call(source: str, *arguments: str, timeout: float = 300) -> subprocess.CompletedProcess:
        command = [sys.executable, "-W", "ignore", "-c", source, *map(str, arguments)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout)

    return call
