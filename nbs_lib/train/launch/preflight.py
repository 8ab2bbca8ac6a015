"""What a training needs of its machine and of the kernel that it starts in, asked before any process is started."""

import importlib.util
import os
import shutil
import socket
import sys
from pathlib import Path

import torch
from accelerate.state import PartialState

from ...config import Train
from ...config.validation import setting
from ..errors import LaunchError


def process_count(config: Train) -> int:
    """Processes on this host: as many as were asked for, or one for each GPU, or 2 on a machine without.

    Errors: LaunchError for more than there are GPUs.
    """
    asked, gpus = config.num_processes, torch.cuda.device_count()
    if gpus and asked > gpus:
        has = f"this machine has {gpus} GPU{'s' * (gpus > 1)}"
        raise LaunchError(
            f"num_processes: given {asked}; {has}; give {gpus} or fewer, or 0 for all"
        )
    return asked or gpus or 2


def check_machine(config: Train):
    """Errors: LaunchError for what this machine, its packages or this kernel cannot do."""
    gpu = torch.cuda.device_count() > 0  # not is_available: it touches CUDA before the fork
    if config.mixed_precision == "fp16" and not gpu:
        raise LaunchError(
            "mixed_precision: given 'fp16', which needs a GPU; give 'bf16' or 'fp32' on a CPU"
        )
    if config.allow_tf32 and not gpu:
        raise LaunchError("allow_tf32: given True, which needs a GPU; leave it out on a CPU")
    for wanted, package in (
        (config.optimizer == "prodigy", "prodigyopt"),
        (config.tensorboard, "tensorboard"),
    ):
        if wanted and importlib.util.find_spec(package) is None:
            raise LaunchError(
                f"package {package} is not installed; it comes with `pip install -e .[{package}]`"
            )
    if config.deepspeed and not gpu:
        _check_compiler()
    if config.launcher == "notebook":
        _check_kernel()


def path_with_python() -> str:
    """PATH with the folder of this Python first: a kernel started by its absolute path may lack it, and ninja with it."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def _check_compiler():
    """DeepSpeed compiles a small extension on a CPU, and looks for both tools even where it has compiled it before."""
    compiler = os.environ.get(
        "CXX", "c++"
    )  # as torch does, whose own module may touch CUDA when it is imported
    tools = {
        "ninja": "`pip install ninja`",
        compiler: "`apt-get install g++`, or what this system calls it",
    }
    for tool, how in tools.items():
        if shutil.which(tool, path=path_with_python()) is None:
            raise LaunchError(
                f"{tool} is not on PATH, and DeepSpeed needs it here; install it ({how}), or train with "
                f"{setting('train', 'deepspeed', False)}"
            )


def _check_kernel():
    """A fork takes over what the kernel has begun; CUDA and an Accelerator do not survive it."""
    way = setting("train", "launcher", "subprocess")
    instead = f"restart the kernel and run the training cell first, or give {way}"
    if torch.cuda.is_initialized() or (torch.cuda.device_count() and _forks_are_spoilt()):
        raise LaunchError(
            f"CUDA was used in this kernel already, and a forked process cannot use it then; {instead}"
        )
    if PartialState._shared_state:
        raise LaunchError(
            f"an Accelerator was made in this kernel already; its processes would take it for theirs; {instead}"
        )


def _forks_are_spoilt() -> bool:
    """Whether CUDA was touched here, if only by a question such as torch.cuda.is_available(): a forked process can tell."""
    child = os.fork()
    if not child:
        os._exit(torch.cuda._is_in_bad_fork())
    return os.waitpid(child, 0)[1] != 0


def port_of(config: Train) -> int:
    """Where the processes meet: the port that was given, or a free one where it is taken or none was given.

    Errors: LaunchError for a taken one of several hosts, which all have to know it.
    """
    if not config.master_port:
        return _free_port()
    if config.node_rank:
        return config.master_port
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as torch's own server does
        try:
            probe.bind(("", config.master_port))
        except OSError:
            if config.num_nodes > 1:
                raise LaunchError(
                    f"master_port: given {config.master_port}, which is in use on this host; give every host another one"
                ) from None
            free = _free_port()
            print(f"port {config.master_port} is in use; {free} is taken instead")
            return free
    return config.master_port


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
