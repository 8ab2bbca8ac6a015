"""Processes that work, fail and die, in a process of their own as a kernel would be."""

import json
import os
import subprocess
import sys

import torch

from nbs_lib.files import ROOT

CASES = """
import json, os, signal, sys, time
from pathlib import Path
from nbs_lib.config import Train
from nbs_lib.run import Run
from nbs_lib.train.launch import RESULT, LaunchError, launch, new_accelerator

def work(what, run, inputs):
    rank = int(os.environ["RANK"])
    if what == "fail" and rank == 1:
        raise ValueError("the second one cannot")
    if what == "die":
        if rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)  # as one that waits for the other
    if what == "plain":
        new_accelerator(Train(zero_stage=0), run.folder)
    if rank == 0:
        told = {"world": os.environ["WORLD_SIZE"], "pid": os.getpid(), "threads": os.environ["OMP_NUM_THREADS"]}
        (run.folder / RESULT).write_text(json.dumps(told))

handler, environment, told = signal.getsignal(signal.SIGTERM), dict(os.environ), {"pid": os.getpid()}
for name, what, processes in [("two", "", 2), ("one", "", 1), ("fail", "fail", 2), ("die", "die", 2), ("plain", "plain", 2)]:
    if what == "plain":
        os.environ["ACCELERATE_USE_CPU"] = "true"
    run = Run(Path(sys.argv[1]) / name)
    run.folder.mkdir(parents=True)
    try:
        told[name] = launch(work, (what, run, {}), processes)
    except LaunchError as error:
        told[name] = str(error)
    told[name + " left"] = [path.name for path in run.folder.iterdir()] if "fail" not in what else []
os.environ.pop("ACCELERATE_USE_CPU")
told["handler"] = signal.getsignal(signal.SIGTERM) == handler
told["environment"] = sorted(set(os.environ.items()) ^ set(environment.items()))
(Path(sys.argv[1]) / "told.json").write_text(json.dumps(told))
"""


def test_processes_work_fail_and_die_and_the_kernel_is_told(python, tmp_path):
    done = python(CASES, tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["two"]["world"] == "2" and told["one"]["world"] == "1" and told["two"]["threads"] == "1"
    assert told["pid"] not in (told["two"]["pid"], told["one"]["pid"]), "never in the kernel itself"
    assert told["fail"] == "training process 1 failed: ValueError: the second one cannot"
    assert "training process 1 was ended by SIGKILL" in told["die"] and "newest checkpoint" in told["die"]
    assert "asked for DeepSpeed on 2 processes, got MULTI_CPU" in told["plain"]
    assert told["two left"] == told["one left"] == [] and told["handler"]
    assert told["environment"] == []


IN_A_FOLDER_WITH_A_SPACE = """
import json, sys
from pathlib import Path
import torch
from nbs_lib.config import Train
from nbs_lib.run import Run
from nbs_lib.train.launch import RESULT, launch, new_accelerator

assert " " in torch.__file__, torch.__file__

def work(config, run, inputs):
    accelerator = new_accelerator(config, run.folder)
    if accelerator.is_main_process:
        (run.folder / RESULT).write_text(json.dumps(accelerator.distributed_type.value))
    accelerator.wait_for_everyone()

print(launch(work, (Train(), Run(sys.argv[1]), {}), 2))
"""


def test_a_lock_that_a_killed_compilation_left_is_cleared_away(python, tmp_path):
    left = tmp_path / "compiled" / "deepspeed_shm_comm" / "lock"
    left.parent.mkdir(parents=True)
    left.touch()
    source = """
import os, sys
os.environ["TORCH_EXTENSIONS_DIR"] = sys.argv[1]
from nbs_lib.train.launch import _compiling_alone
with _compiling_alone():
    print(os.path.exists(sys.argv[2]))
    open(sys.argv[2], "w").close()
    with _compiling_alone():  # another training: its compilation may be at work
        print(os.path.exists(sys.argv[2]))
"""
    done = python(source, tmp_path / "compiled", left)
    assert done.stdout.split() == ["False", "True"], done.stderr


def test_deepspeed_compiles_its_extension_where_the_path_has_spaces(tmp_path):
    """An environment in a folder with a space in its name, and nothing compiled yet."""
    packages = tmp_path / "my envirönment"
    packages.symlink_to(os.path.dirname(os.path.dirname(torch.__file__)))
    environment = os.environ | {
        "PYTHONPATH": f"{packages}{os.pathsep}{ROOT}",
        "TORCH_EXTENSIONS_DIR": str(tmp_path / "compiled"),
    }
    command = [sys.executable, "-c", IN_A_FOLDER_WITH_A_SPACE, tmp_path]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "DEEPSPEED" in done.stdout, done.stderr
    assert list((tmp_path / "compiled").rglob("*.so"))
