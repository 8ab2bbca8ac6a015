"""What is refused before any process starts, in one sentence that says what to do."""

import re
import socket

import pytest
import torch

from nbs_lib.config import Train
from nbs_lib.run.run import Run
from nbs_lib.train.errors import LaunchError
from nbs_lib.train.launch import preflight as guard
from nbs_lib.train.launch.launcher import launch
from nbs_lib.train.launch.preflight import check_machine, port_of, process_count


def test_fp16_needs_a_gpu():
    with pytest.raises(LaunchError, match="needs a GPU; give 'bf16' or 'fp32'"):
        check_machine(Train(mixed_precision="fp16"))
    with pytest.raises(LaunchError, match="allow_tf32: given True, which needs a GPU"):
        check_machine(Train(allow_tf32=True))


def test_a_place_for_what_deepspeed_compiles_that_cannot_be_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", "/dev/null/extensions")
    with pytest.raises(LaunchError, match="TORCH_EXTENSIONS_DIR, or give deepspeed = False"):
        launch(print, Train(str(tmp_path)), Run(tmp_path), {})


def test_more_processes_than_gpus_are_refused_and_all_are_the_default(monkeypatch):
    assert process_count(Train()) == 2 and process_count(Train(num_processes=5)) == 5, "no GPU here"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert process_count(Train()) == 4 and process_count(Train(num_processes=3)) == 3
    with pytest.raises(LaunchError, match="given 5; this machine has 4 GPUs; give 4 or fewer"):
        process_count(Train(num_processes=5))


def test_a_kernel_that_holds_cuda_is_told_of_the_other_launcher(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with pytest.raises(
        LaunchError,
        match="CUDA was used in this kernel.*restart the kernel.*launcher = 'subprocess'",
    ):
        check_machine(Train())
    check_machine(Train(launcher="subprocess"))


def test_a_kernel_with_an_accelerator_is_told_of_the_other_launcher(python):
    done = python(
        "from accelerate import Accelerator; Accelerator(cpu=True)\n"
        "from nbs_lib.config import Train; from nbs_lib.train.launch.preflight import check_machine\n"
        "check_machine(Train(launcher='subprocess')); check_machine(Train())"
    )
    assert (
        "LaunchError: an Accelerator was made in this kernel already" in done.stderr
        and "subprocess" in done.stderr
    )


def test_whether_there_is_a_gpu_is_asked_of_the_driver_for_cuda_would_spoil_forks(python):
    done = python("""
import torch, nbs_lib
def touched(): raise RuntimeError("CUDA was touched")
torch._C._cuda_getDeviceCount = touched  # as in a torch for GPUs
torch.cuda._device_count_nvml = lambda: 1  # as the driver says of a machine with one
assert torch.cuda.is_available(), "which diffusers asks when it is imported"
""")
    assert not done.returncode, done.stderr


@pytest.mark.parametrize("tool", ["ninja", "/nowhere/g++"])
def test_what_deepspeed_compiles_with_is_asked_for_first(monkeypatch, tmp_path, tool):
    if tool == "ninja":
        monkeypatch.setattr(guard.sys, "executable", str(tmp_path / "python"))
        monkeypatch.setenv("PATH", "/nowhere")
    else:
        monkeypatch.setenv("CXX", tool)
    with pytest.raises(
        LaunchError, match=f"^{re.escape(tool)} is not on PATH.*install it.*deepspeed = False"
    ):
        check_machine(Train())
    check_machine(Train(deepspeed=False))


def test_a_taken_port_is_left_alone_and_hosts_that_agreed_on_it_are_told(capsys):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        taken = server.getsockname()[1]
        free = port_of(Train(master_port=taken))
        assert (
            free != taken
            and f"port {taken} is in use; {free} is taken instead" in capsys.readouterr().out
        )
        with pytest.raises(
            LaunchError,
            match=f"given {taken}, which is in use on this host; give every host another one",
        ):
            port_of(Train(master_port=taken, num_nodes=2))
        assert port_of(Train(master_port=taken, num_nodes=2, node_rank=1)) == taken, (
            "it is host 0's"
        )
    assert port_of(Train(master_port=taken)) == taken and port_of(Train()) > 1023
