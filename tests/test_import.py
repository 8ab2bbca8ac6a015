"""Importing the library is cheap and leaves the machine as it was. The layers themselves are held by `make lint`."""

import subprocess
import sys

from nbs_lib.files import ROOT

HEAVY = {"torch", "diffusers", "transformers", "peft", "accelerate", "deepspeed"}


def test_importing_the_library_loads_no_torch_and_touches_nothing():
    code = f"""
import os, socket, sys

def refuse(*args, **kwargs):
    raise AssertionError("the network was touched")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refuse
before = dict(os.environ)
import nbs_lib
import nbs_lib.config, nbs_lib.run.run
assert dict(os.environ) == before, "the environment was changed"
assert not {HEAVY!r} & set(sys.modules), sorted({HEAVY!r} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
