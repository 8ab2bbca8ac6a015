"""The checks before any process starts."""

import socket

import pytest
import torch

from nbs_lib.config import Train
from nbs_lib.launch.errors import LaunchError
from nbs_lib.launch.preflight import check_machine, port_of, process_count


def test_fp16_needs_a_gpu():
    with pytest.raises(LaunchError, match="needs a GPU; give 'bf16' or 'fp32'"):
        check_machine(Train(mixed_precision="fp16"))
    with pytest.raises(LaunchError, match="allow_tf32: given True, which needs a GPU"):
        check_machine(Train(allow_tf32=True))


def test_processes_are_limited_by_gpus(monkeypatch):
    assert process_count(Train()) == 2 and process_count(Train(num_processes=5)) == 5, "no GPU here"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert process_count(Train()) == 4 and process_count(Train(num_processes=3)) == 3
    with pytest.raises(LaunchError, match="given 5; this machine has 4 GPUs; give 4 or fewer"):
        process_count(Train(num_processes=5))


def test_a_kernel_that_holds_cuda_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with pytest.raises(
        LaunchError,
        match="CUDA was used in this kernel.*restart the kernel.*launcher = 'subprocess'",
    ):
        check_machine(Train())
    check_machine(Train(launcher="subprocess"))


def test_a_kernel_with_an_accelerator_is_refused(python):
    process = python(
        "from accelerate import Accelerator; Accelerator(cpu=True)\n"
        "from nbs_lib.config import Train\n"
        "from nbs_lib.launch.preflight import check_machine\n"
        "check_machine(Train(launcher='subprocess')); check_machine(Train())"
    )
    assert (
        "LaunchError: an Accelerator was made in this kernel already" in process.stderr
        and "subprocess" in process.stderr
    )


def test_the_driver_counts_the_gpus_without_cuda(python):
    process = python("""
import torch, nbs_lib
def touched(): raise RuntimeError("CUDA was touched")
torch._C._cuda_getDeviceCount = touched  # as in a torch for GPUs
torch.cuda._device_count_nvml = lambda: 1  # as the driver says of a machine with one
assert torch.cuda.is_available(), "which diffusers asks when it is imported"
""")
    assert not process.returncode, process.stderr


def test_a_port_in_use_is_replaced_or_refused(capsys):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        free = port_of(Train(master_port=port))
        assert (
            free != port
            and f"port {port} is in use; {free} is taken instead" in capsys.readouterr().out
        )
        with pytest.raises(
            LaunchError,
            match=f"given {port}, which is in use on this host; give every host another one",
        ):
            port_of(Train(master_port=port, num_nodes=2))
        assert port_of(Train(master_port=port, num_nodes=2, node_rank=1)) == port, "it is host 0's"
    assert port_of(Train(master_port=port)) == port and port_of(Train()) > 1023
