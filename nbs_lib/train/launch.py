"""Processes: the one module that knows of them.

accelerate's notebook_launcher forks the training function out of the kernel; each child builds its own Accelerator on
DeepSpeed. What came about (DeepSpeed, number of processes) is checked against what was asked for.
"""

import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULT = ".launched.json"


class LaunchError(RuntimeError):
    """Processes that cannot be, or did not become, what was asked for."""


def process_count(asked: int) -> int:
    """`asked`, or for 0 one for each GPU, or 2 on a machine without. Errors: LaunchError for more than there are GPUs."""
    import torch

    gpus = torch.cuda.device_count()
    if gpus and asked > gpus:
        raise LaunchError(f"processes: given {asked}; this machine has {gpus} GPUs; give {gpus} or fewer, or 0 for all")
    return asked or gpus or 2


def launch(function: Callable, args: tuple, asked: int) -> dict[str, Any]:
    """Run `function(*args)` in every process; what the main one left in the run's file `.launched.json`.

    args: (config, run, inputs). Errors: LaunchError; torch's ChildFailedError where a process failed or was killed.
    """
    import torch
    from accelerate import notebook_launcher
    from accelerate.utils import patch_environment

    if torch.cuda.is_initialized():
        raise LaunchError("CUDA was used in this kernel already; restart the kernel and run the training cell first")
    processes = process_count(asked)
    result = Path(args[1].folder) / RESULT
    result.unlink(missing_ok=True)
    before = signal.getsignal(signal.SIGTERM)
    # a kernel started by its absolute path may lack its own bin folder, where DeepSpeed looks for ninja
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    port = str(free_port())
    try:
        with patch_environment(path=path, omp_num_threads=1, tokenizers_parallelism="false"):
            if processes > 1:
                notebook_launcher(function, args, num_processes=processes, use_port=port)
            else:
                _one_child(function, args, port)
    finally:
        signal.signal(signal.SIGTERM, before)
    launched = json.loads(result.read_text())
    result.unlink()
    return launched


def _one_child(function: Callable, args: tuple, port: str):
    """One process goes the way of two: in a child, never in the kernel."""
    import torch.multiprocessing
    from accelerate.utils import patch_environment

    place = {"rank": 0, "local_rank": 0, "world_size": 1, "master_addr": "127.0.0.1", "master_port": port}
    with patch_environment(**place):
        torch.multiprocessing.start_processes(_ignoring_index, (function, args), nprocs=1, start_method="fork")


def _ignoring_index(index: int, function: Callable, args: tuple):
    function(*args)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def new_accelerator(zero_stage: int, batch_size: int, clip: float):
    """An Accelerator on DeepSpeed; to be called inside a launched process.

    Precision is left to the student's own autocast: DeepSpeed's would cast the adapter.
    Errors: LaunchError where accelerate gave something else than DeepSpeed on all processes.
    """
    import torch
    from accelerate import Accelerator, DeepSpeedPlugin, InitProcessGroupKwargs
    from accelerate.utils import DistributedType

    plugin = DeepSpeedPlugin(zero_stage=zero_stage, gradient_clipping=clip, gradient_accumulation_steps=1)
    plugin.deepspeed_config["train_micro_batch_size_per_gpu"] = batch_size
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    accelerator = Accelerator(
        mixed_precision="no", deepspeed_plugin=plugin, kwargs_handlers=[InitProcessGroupKwargs(backend=backend)]
    )
    wanted = int(os.environ["WORLD_SIZE"])
    if accelerator.distributed_type != DistributedType.DEEPSPEED or accelerator.num_processes != wanted:
        raise LaunchError(
            f"asked for DeepSpeed on {wanted} processes, got {accelerator.distributed_type.value} "
            f"on {accelerator.num_processes}; unset ACCELERATE_USE_CPU and start again"
        )
    return accelerator
