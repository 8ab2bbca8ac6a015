"""The installation behind `make setup`: by uv with pip's own configuration, or else by pip."""

import os
import subprocess
from pathlib import Path

import pytest

from nbs_lib.files import ROOT

PYTHON = """#!/bin/sh
[ "$*" = "-m pip config list" ] || { echo "python $*" >> "$LOG"; exit $PIP_STATUS; }
cat <<EOF
:env:.find-links='/opt/wheels'
global.cert='/etc/my.pem'
global.extra-index-url='\\\\nfile:///one\\\\nhttps://two/simple'
global.find-links='/opt/others'
EOF
"""
"""A Python whose pip is configured, and does nothing else."""
UV = """#!/bin/sh
[ "$1" != --version ] || { echo "uv 1.0"; exit; }
echo "uv $SSL_CERT_FILE $*" >> "$LOG"
exit $UV_STATUS
"""


@pytest.fixture
def install(tmp_path):
    """Return `install(uv, **statuses)`, which returns the commands of an installation."""

    def call(uv: bool, **statuses: str) -> list[str]:
        log = tmp_path / "log"
        log.unlink(missing_ok=True)
        tools = [tmp_path / "environment" / "bin" / "python"]
        write_tool(tools[0], PYTHON)
        folder = tmp_path / "tools"
        # the one in the environment is what pip would install
        for place in (folder, tools[0].parent) if uv else (tools[0].parent,):
            write_tool(place / "uv", UV)
        environment = {"PATH": f"{folder}:/usr/bin:/bin", "LOG": str(log)}
        environment |= {"UV_STATUS": "0", "PIP_STATUS": "0"} | statuses
        command = [ROOT / ".ci" / "install", tools[0]]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        commands = log.read_text().splitlines()
        return [*commands, f"exit {done.returncode}"]

    return call


def write_tool(path: Path, text: str):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.chmod(path, 0o755)


def test_uv_installs_from_where_pip_would(install, tmp_path):
    command, status = install(uv=True)
    python = tmp_path / "environment" / "bin" / "python"
    assert command.startswith(f"uv /etc/my.pem pip install --python {python} -c constraints.txt")
    for option in ("--index file:///one", "--index https://two/simple", "--find-links /opt/wheels"):
        assert option in command
    assert "/opt/others" not in command, "the environment's goes before it"
    assert command.endswith("-e .[dev]") and status == "exit 0"


def test_uv_is_installed_where_there_is_none(install):
    (tools, command, status) = install(uv=False)
    assert tools == "python -m pip install -q -c constraints.txt uv"
    assert command.startswith("uv ") and status == "exit 0"


def test_pip_installs_if_uv_cannot(install):
    _, torch, rest, status = install(uv=True, UV_STATUS="1")
    assert torch == "python -m pip install -c constraints.txt torch==2.13.0"
    assert rest == "python -m pip install -c constraints.txt -e .[dev]" and status == "exit 0"


def test_a_failed_installation_fails(install):
    assert install(uv=False, PIP_STATUS="1")[-1] == "exit 1"
