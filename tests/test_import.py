"""The library's import is cheap and changes nothing. `make lint` checks the layers."""

import subprocess
import sys

from nbs_lib.files import ROOT

HEAVY = {"torch", "diffusers", "transformers", "peft", "accelerate", "deepspeed"}


def test_importing_the_library_loads_no_torch_and_touches_nothing():
    code = f"""
import os, socket, sys

def refuse(*args, **kwargs):
    raise AssertionError("the network was touched")

for owner, name in (
    (socket.socket, "connect"),
    (socket.socket, "connect_ex"),
    (socket, "getaddrinfo"),
    (socket, "create_connection"),
):
    setattr(owner, name, refuse)
before = dict(os.environ)
import nbs_lib
import nbs_lib.config, nbs_lib.run.run
assert dict(os.environ) == before, "the environment was changed"
assert not {HEAVY!r} & set(sys.modules), sorted({HEAVY!r} & set(sys.modules))
"""
    command = [sys.executable, "-c", code]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
