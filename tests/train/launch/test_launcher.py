"""Processes that work, fail and die, in a process of their own as a kernel would be."""

import json
import os
import subprocess
import sys

import pytest
import torch

from nbs_lib.files import ROOT

pytestmark = pytest.mark.slow

CASES = """
import json, os, signal, sys, time
from pathlib import Path
import torch
from nbs_lib.config import Train
from nbs_lib.run.run import Run
from nbs_lib.train.errors import LaunchError
from nbs_lib.train.launch.launcher import RESULT, launch

def work(config, run, inputs):
    torch.randn(900, 900) @ torch.randn(900, 900)  # would hang for ever on threads that did not survive the fork
    rank = int(os.environ["RANK"])
    if run.name == "fail" and rank == 1:
        raise ValueError("the second one cannot")
    if run.name == "die":
        if rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)  # as one that waits for the other
    if rank == 0:
        told = {"world": os.environ["WORLD_SIZE"], "pid": os.getpid(), "threads": os.environ["OMP_NUM_THREADS"]}
        (run.folder / RESULT).write_text(json.dumps(told | inputs))

def main(folder, launcher):
    import cases
    torch.set_num_threads(2)
    torch.randn(900, 900) @ torch.randn(900, 900)  # a kernel whose threads have begun
    handler, environment, told = signal.getsignal(signal.SIGTERM), dict(os.environ), {"pid": os.getpid()}
    for name in ("two", "one", "fail", "die"):
        run = Run(Path(folder) / name)
        run.folder.mkdir(parents=True)
        config = Train(run=str(run.folder), num_processes=1 if name == "one" else 2, launcher=launcher)
        try:
            told[name] = launch(cases.work, config, run, {"given": "so"})
        except LaunchError as error:
            told[name] = str(error)
        told[name + " left"] = [path.name for path in run.folder.iterdir()]
    told["handler"] = signal.getsignal(signal.SIGTERM) == handler
    told["environment"] = sorted(set(os.environ.items()) ^ set(environment.items()))
    (Path(folder) / "told.json").write_text(json.dumps(told))
"""


@pytest.mark.parametrize("launcher", ["notebook", "subprocess"])
def test_processes_work_fail_and_die_and_the_kernel_is_told(
    python, tmp_path, monkeypatch, launcher
):
    (tmp_path / "cases.py").write_text(CASES)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv(
        "ACCELERATE_USE_CPU", "true"
    )  # as a user's own settings, which are no parameters
    done = python("import cases, sys; cases.main(*sys.argv[1:])", tmp_path, launcher)
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "told.json").read_text())
    assert (
        told["two"]["world"] == "2"
        and told["one"]["world"] == "1"
        and told["two"]["threads"] == "1"
    )
    assert told["pid"] not in (told["two"]["pid"], told["one"]["pid"]), "never in the kernel itself"
    assert told["two"]["given"] == "so"
    assert told["fail"] == "training process 1 failed: ValueError: the second one cannot"
    assert (
        "training process 1 was ended by SIGKILL" in told["die"]
        and "newest checkpoint" in told["die"]
    )
    assert told["two left"] == told["one left"] == [] and told["handler"]
    assert told["environment"] == []


IN_A_FOLDER_WITH_A_SPACE = """
import json, sys
from pathlib import Path
import torch
from nbs_lib.config import Train
from nbs_lib.run.run import Run
from nbs_lib.train.accelerator import new_accelerator
from nbs_lib.train.launch.launcher import RESULT, launch

assert " " in torch.__file__, torch.__file__

def work(config, run, inputs):
    accelerator = new_accelerator(config, run.folder)
    if accelerator.is_main_process:
        (run.folder / RESULT).write_text(json.dumps(accelerator.distributed_type.value))
    accelerator.wait_for_everyone()

print(launch(work, Train(), Run(sys.argv[1]), {}))
"""


LOADED = """
import sys
from pathlib import Path
from nbs_lib.config import Train
from nbs_lib.train.dataset import Examples
from nbs_lib.train.zero import deepspeed_plugin

examples = Examples(Path(sys.argv[1]), Train())
examples.ids(examples.held_out)
deepspeed_plugin(Train())
import deepspeed.runtime.zero.muon.muon_optimizer  # as DeepSpeed does when it is given an optimizer
print(sorted({"pandas", "pyarrow.dataset", "torch._inductor.compile_fx"} & set(sys.modules)))
"""


def test_a_process_that_trains_loads_no_compiler_and_no_tables_of_others(python, prepared):
    """They would be loaded in every process, for nothing."""
    done = python(LOADED, prepared.cache)
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stdout + done.stderr


def test_a_lock_that_a_killed_compilation_left_is_cleared_away(python, tmp_path):
    left = tmp_path / "compiled" / "deepspeed_shm_comm" / "lock"
    left.parent.mkdir(parents=True)
    left.touch()
    source = """
import os, sys
os.environ["TORCH_EXTENSIONS_DIR"] = sys.argv[1]
from nbs_lib.train.launch.launcher import _compiling_alone
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


MOVED = """
import json, shutil, sys
from nbs_lib.config import Train
from nbs_lib.run.run import Run
from nbs_lib.train.launch.launcher import launch

def work(config, run, inputs):
    shutil.move(run.folder, run.folder.with_name("moved"))
    if inputs:  # as a checkpoint that is written makes the folder anew
        (run.folder / "checkpoints").mkdir(parents=True)
    raise FileNotFoundError("it is not there")

def main(folder, anew):
    import moved
    config = Train(run=folder, num_processes=1)
    run = Run(folder)
    try:
        with run.stage(config):
            launch(moved.work, config, run, {"anew": "1"} if anew == "anew" else {})
    except Exception as failure:
        print(json.dumps([str(failure), sorted(path.name for path in run.folder.glob("*"))]))
"""


@pytest.mark.parametrize("anew", ["gone", "anew"])
def test_a_folder_that_is_moved_meanwhile_is_told_as_that(python, tmp_path, monkeypatch, anew):
    (tmp_path / "moved.py").write_text(MOVED)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = python("import sys, moved; moved.main(*sys.argv[1:])", tmp_path / "a run", anew)
    said, there = json.loads(done.stdout.splitlines()[-1])
    assert "was moved or removed while a stage worked in it" in said and "memory" not in said, (
        done.stderr
    )
    assert there == (["checkpoints"] if anew == "anew" else []), (
        "no record is made where the run was"
    )
    assert json.loads((tmp_path / "moved" / "run.json").read_text())["status"] == "running"
