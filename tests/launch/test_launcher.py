"""Processes that work, fail and die, in a process of their own as a kernel would be."""

import json
import os
import subprocess
import sys

import pytest

from nbs_lib.files import ROOT

pytestmark = pytest.mark.slow

CASES = """
import json, os, signal, sys, time
from pathlib import Path
import torch
from nbs_lib.config import Train
from nbs_lib.run.run import Run
from nbs_lib.launch.errors import LaunchError
from nbs_lib.launch.launcher import RESULT_FILE, launch

def work(config, run, inputs):
    # would hang for ever on threads that did not survive the fork
    torch.randn(900, 900) @ torch.randn(900, 900)
    rank = int(os.environ["RANK"])
    if run.name == "fail" and rank == 1:
        raise ValueError("the second one cannot")
    if run.name == "die":
        if rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)  # as one that waits for the other
    if rank == 0:
        result = {"world": os.environ["WORLD_SIZE"], "pid": os.getpid()}
        result["threads"] = os.environ["OMP_NUM_THREADS"]
        (run.folder / RESULT_FILE).write_text(json.dumps(result | inputs))

def main(folder, launcher):
    import cases
    torch.set_num_threads(2)
    torch.randn(900, 900) @ torch.randn(900, 900)  # a kernel whose threads have begun
    handler = signal.getsignal(signal.SIGTERM)
    environment = dict(os.environ)
    results = {"pid": os.getpid()}
    for name in ("two", "one", "fail", "die"):
        run = Run(Path(folder) / name)
        run.folder.mkdir(parents=True)
        processes = 1 if name == "one" else 2
        config = Train(run=str(run.folder), num_processes=processes, launcher=launcher)
        try:
            results[name] = launch(cases.work, config, run, {"input": "hash"})
        except LaunchError as error:
            results[name] = str(error)
        results[name + " left"] = [path.name for path in run.folder.iterdir()]
    results["handler"] = signal.getsignal(signal.SIGTERM) == handler
    results["environment"] = sorted(set(os.environ.items()) ^ set(environment.items()))
    (Path(folder) / "results.json").write_text(json.dumps(results))
"""


@pytest.mark.parametrize("launcher", ["notebook", "subprocess"])
def test_processes_that_work_fail_or_die_are_reported(python, tmp_path, monkeypatch, launcher):
    (tmp_path / "cases.py").write_text(CASES)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv(
        "ACCELERATE_USE_CPU", "true"
    )  # as a user's own settings, which are no parameters
    process = python("import cases, sys; cases.main(*sys.argv[1:])", tmp_path, launcher)
    assert process.returncode == 0, process.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert (
        results["two"]["world"] == "2"
        and results["one"]["world"] == "1"
        and results["two"]["threads"] == "1"
    )
    assert results["pid"] not in (results["two"]["pid"], results["one"]["pid"]), (
        "never in the kernel itself"
    )
    assert results["two"]["input"] == "hash"
    assert results["fail"] == "training process 1 failed: ValueError: the second one cannot"
    assert (
        "training process 1 was ended by SIGKILL" in results["die"]
        and "newest checkpoint" in results["die"]
    )
    assert results["two left"] == results["one left"] == [] and results["handler"]
    assert results["environment"] == []


WITHOUT_COMPILER = """
import json, sys
from pathlib import Path
import torch
from nbs_lib.config import Train
from nbs_lib.run.run import Run
from nbs_lib.train.accelerator import new_accelerator, wrap_for_training
from nbs_lib.launch.launcher import RESULT_FILE, launch

def work(config, run, inputs):
    accelerator = new_accelerator(config, run.folder)
    # leaf blocks of ZeRO 3 have to be among the layers
    from diffusers.models.resnet import ResnetBlock2D
    model = ResnetBlock2D(in_channels=8, temb_channels=None, groups=2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    engine, optimizer = accelerator.prepare(model, optimizer)
    loss = engine(torch.ones(1, 8, 4, 4), None).square().mean()
    accelerator.backward(loss)
    optimizer.step()
    if accelerator.is_main_process:
        (run.folder / RESULT_FILE).write_text(json.dumps(accelerator.distributed_type.value))
    accelerator.wait_for_everyone()

stage, offload = int(sys.argv[2]), sys.argv[3] == "True"
config = Train(zero_stage=stage, offload=offload, mixed_precision="fp32")
print(launch(work, config, Run(sys.argv[1]), {}))
"""


LOADED = """
import sys
from pathlib import Path
from nbs_lib.config import Train
from nbs_lib.train.data.dataset import Examples
from nbs_lib.train.zero import deepspeed_plugin

examples = Examples(Path(sys.argv[1]), Train())
examples.ids(examples.held_out)
deepspeed_plugin(Train())
import deepspeed.runtime.zero.muon.muon_optimizer  # as DeepSpeed does when it is given an optimizer
print(sorted({"pandas", "pyarrow.dataset", "torch._inductor.compile_fx"} & set(sys.modules)))
"""


def test_a_training_process_imports_no_compiler_and_no_pandas(python, prepared):
    """They would be loaded in every process, for nothing."""
    process = python(LOADED, prepared.cache)
    assert process.stdout.splitlines()[-1:] == ["[]"], process.stdout + process.stderr


@pytest.mark.parametrize(("stage", "offload"), [(0, False), (2, True)])
def test_deepspeed_compiles_nothing(tmp_path, stage, offload):
    """A machine without a compiler trains too, and the first training starts like any other."""
    extensions = tmp_path / "extensions"
    environment = os.environ | {
        "CXX": "/nowhere/c++",
        "PATH": "/nowhere",
        "PYTHONPATH": str(ROOT),
        "TORCH_EXTENSIONS_DIR": str(extensions),
    }
    command = [sys.executable, "-c", WITHOUT_COMPILER, tmp_path / "a run", stage, offload]
    (tmp_path / "a run").mkdir()
    process = subprocess.run(
        [str(part) for part in command],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0 and "DEEPSPEED" in process.stdout, process.stderr
    assert not extensions.exists()


MOVED = """
import json, shutil, sys
from nbs_lib.config import Train
from nbs_lib.run.run import Run
from nbs_lib.launch.launcher import launch

def work(config, run, inputs):
    shutil.move(run.folder, run.folder.with_name("moved"))
    if inputs:  # as a checkpoint that is written makes the folder again
        (run.folder / "checkpoints").mkdir(parents=True)
    raise FileNotFoundError("it is not there")

def main(folder, outcome):
    import moved
    config = Train(run=folder, num_processes=1)
    run = Run(folder)
    try:
        with run.stage(config):
            launch(moved.work, config, run, {"again": "1"} if outcome == "again" else {})
    except Exception as failure:
        print(json.dumps([str(failure), sorted(path.name for path in run.folder.glob("*"))]))
"""


@pytest.mark.parametrize("outcome", ["gone", "again"])
def test_a_folder_that_is_moved_meanwhile_is_reported(python, tmp_path, monkeypatch, outcome):
    (tmp_path / "moved.py").write_text(MOVED)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    process = python("import sys, moved; moved.main(*sys.argv[1:])", tmp_path / "a run", outcome)
    message, files = json.loads(process.stdout.splitlines()[-1])
    assert (
        "was moved or removed while a stage worked in it" in message and "memory" not in message
    ), process.stderr
    assert files == (["checkpoints"] if outcome == "again" else []), (
        "no record is made where the run was"
    )
    assert json.loads((tmp_path / "moved" / "run.json").read_text())["status"] == "running"
