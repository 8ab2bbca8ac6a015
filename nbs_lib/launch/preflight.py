"""The needs of a training, checked on its machine and its kernel before any process starts."""

import importlib.util
import os
import socket

import torch
from accelerate.state import PartialState

from ..config import Prepare, Train
from ..config.validation import setting
from ..project import pip_requirement
from .errors import LaunchError

# Optimizers that are extras, by the package, which the extra is named after.
OPTIMIZER_PACKAGES = {"adamw_8bit": "bitsandbytes", "prodigy": "prodigyopt"}


def process_count(config: Train) -> int:
    """Return the processes of this host: as asked for, or one for each GPU, or 2 without a GPU.

    Errors: LaunchError for more than there are GPUs.
    """
    count = config.num_processes
    gpus = torch.cuda.device_count()
    if gpus and count > gpus:
        raise LaunchError(
            f"num_processes: given {count}; this machine has {gpus} GPU{'s' * (gpus > 1)}; "
            f"give {gpus} or fewer, or 0 for all"
        )
    return count or gpus or 2


def check_machine(config: Train):
    """Check what this machine, its packages and this kernel can do.

    Errors: LaunchError, with what is missing and what to do.
    """
    # not is_available: it touches CUDA before the fork
    gpu = torch.cuda.device_count() > 0
    if config.mixed_precision == "fp16" and not gpu:
        raise LaunchError(
            "mixed_precision: given 'fp16', which needs a GPU; give 'bf16' or 'fp32' on a CPU"
        )
    if config.allow_tf32 and not gpu:
        raise LaunchError("allow_tf32: given True, which needs a GPU; leave it out on a CPU")
    if config.optimizer in OPTIMIZER_PACKAGES:
        _check_extra(OPTIMIZER_PACKAGES[config.optimizer])
    for name in config.trackers:
        _check_extra(name)
    if config.launcher == "notebook":
        _check_kernel()


def _check_extra(package: str):
    # finds the package without importing it
    if importlib.util.find_spec(package) is None:
        raise LaunchError(
            f"package {package} is not installed; "
            f"it comes with `pip install {pip_requirement(package)}`"
        )


def _check_kernel():
    """Check that this kernel can be forked: CUDA and an Accelerator do not survive it."""
    subprocess = setting("train", "launcher", "subprocess")
    remedy = f"restart the kernel and run the training cell first, or give {subprocess}"
    if torch.cuda.is_initialized() or (torch.cuda.device_count() and _fork_is_spoilt()):
        raise LaunchError(
            "CUDA was used in this kernel already, and a forked process cannot use it then; "
            f"{remedy}"
        )
    if PartialState._shared_state:
        raise LaunchError(
            "an Accelerator was made in this kernel already; its processes would take it for "
            f"theirs; {remedy}"
        )


def _fork_is_spoilt() -> bool:
    """Return True if CUDA was touched here, if only by torch.cuda.is_available()."""
    # only a forked process can tell
    child = os.fork()
    if not child:
        os._exit(torch.cuda._is_in_bad_fork())
    return os.waitpid(child, 0)[1] != 0


def port_of(config: Train | Prepare) -> int:
    """Return the port of the rendezvous: the parameters', or a free one if it is 0 or in use.

    Errors: LaunchError if it is in use and several hosts have to know it.
    """
    port = config.master_port
    if not port:
        return _free_port()
    if config.node_rank:
        return port
    with socket.socket() as probe:
        # as torch's own server does
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
            return port
        except OSError:
            pass
    if config.num_nodes > 1:
        raise LaunchError(
            f"master_port: given {port}, which is in use on this host; give every host another one"
        )
    free = _free_port()
    print(f"port {port} is in use; {free} is taken instead")
    return free


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
