"""Processes: the one module that knows of them.

accelerate's notebook_launcher forks the training function out of the kernel; each child builds its own Accelerator on
DeepSpeed. What came about (DeepSpeed, number of processes) is checked against what was asked for. What is imported here is
imported before the fork, so it must start no thread and touch no device.
"""

import fcntl
import importlib.util
import json
import os
import shlex
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import notebook_launcher
from accelerate.utils import patch_environment
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.multiprocessing import _prctl_pr_set_pdeathsig
from torch.multiprocessing.spawn import ProcessException, start_processes
from torch.utils.cpp_extension import get_default_build_root

from ..config import Train
from ..files import write_atomic

LONGEST = timedelta(hours=6)
"""That a process waits for the others: the main one alone looks, saves and verifies. One that dies ends all at once."""
DEADLY = (signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT)
"""Signals that come from outside or from a crash, not from the launcher that ends the rest."""
RESULT, FAILED = ".launched.json", ".failed-"
"""What the main process leaves in the run's folder, and what a failed one leaves, by its rank."""


class LaunchError(RuntimeError):
    """Processes that cannot be, or did not become, what was asked for."""


def process_count(asked: int) -> int:
    """`asked`, or for 0 one for each GPU, or 2 on a machine without. Errors: LaunchError for more than there are GPUs."""
    gpus = torch.cuda.device_count()
    if gpus and asked > gpus:
        raise LaunchError(f"processes: given {asked}; this machine has {gpus} GPUs; give {gpus} or fewer, or 0 for all")
    return asked or gpus or 2


def check_machine(config: Train):
    """Errors: LaunchError for what this machine or its packages cannot do."""
    if config.precision == "fp16" and not torch.cuda.device_count():  # not is_available: it touches CUDA before the fork
        raise LaunchError("precision: given 'fp16', which needs a GPU; give 'bf16' or 'fp32' on a CPU")
    for wanted, package in ((config.optimizer == "prodigy", "prodigyopt"), (config.tensorboard, "tensorboard")):
        if wanted and importlib.util.find_spec(package) is None:
            raise LaunchError(f"package {package} is not installed; it comes with `pip install -e .[{package}]`")


def launch(function: Callable, args: tuple, asked: int) -> dict[str, Any]:
    """Run `function(*args)` in every process; what the main one left in the run's file `.launched.json`.

    args: (config, run, inputs). Errors: LaunchError, which says what the first process to fail said.
    """
    if torch.cuda.is_initialized():
        raise LaunchError("CUDA was used in this kernel already; restart the kernel and run the training cell first")
    processes, folder = process_count(asked), Path(args[1].folder)
    for left in (folder / RESULT, *folder.glob(f"{FAILED}*")):
        left.unlink(missing_ok=True)
    handler, names = signal.getsignal(signal.SIGTERM), set(os.environ)
    # a kernel started by its absolute path may lack its own bin folder, where DeepSpeed looks for ninja
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    port = str(free_port())
    try:
        with _compiling_alone(), patch_environment(path=path, omp_num_threads=1, tokenizers_parallelism="false"):
            if processes > 1:
                notebook_launcher(_noting_failure, (function, *args), num_processes=processes, use_port=port)
            else:
                _one_child((function, *args), port)
    except (ChildFailedError, ProcessException) as failure:
        raise LaunchError(_first_failure(folder, failure)) from None
    finally:
        signal.signal(signal.SIGTERM, handler)  # torch elastic leaves its own, and variables of its own
        for name in set(os.environ) - names:
            del os.environ[name]
    launched = json.loads((folder / RESULT).read_text())
    (folder / RESULT).unlink()
    return launched


@contextmanager
def _compiling_alone() -> Iterator[None]:
    """Clear away locks that killed processes left on torch's extensions: torch would wait for their end for ever.

    They are known to be left behind where no other training is there, which would hold our own lock beside them.
    """
    root = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root())
    root.mkdir(parents=True, exist_ok=True)
    with (root / "onepass.lock").open("a") as file:
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for left in root.rglob("lock"):
                left.unlink(missing_ok=True)
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


def _noting_failure(function: Callable, *args: Any):
    """Leave a note of what ended this process: a parent learns no more than that a child has failed.

    The process dies with the kernel. torch asks for SIGINT then, which a process that waits for another one never takes.
    """
    _prctl_pr_set_pdeathsig(signal.SIGKILL)
    try:
        function(*args)
    except Exception as failure:
        said = (str(failure).strip().splitlines() or [""])[0][:500]  # a compiler's whole output stands above it
        note = {"seconds": time.time(), "said": f"{type(failure).__name__}: {said}"}
        write_atomic(Path(args[1].folder) / f"{FAILED}{os.environ.get('RANK', 0)}", json.dumps(note))
        raise


def _first_failure(folder: Path, failure: Exception) -> str:
    if isinstance(failure, ChildFailedError):  # the others fail for want of one that was killed, and leave notes of that
        killed = [(rank, told.exitcode) for rank, told in failure.failures.items() if -told.exitcode in DEADLY]
        if killed:
            return _ended(*killed[0])
    notes = {path.name.removeprefix(FAILED): json.loads(path.read_text()) for path in folder.glob(f"{FAILED}*")}
    if notes:
        rank = min(notes, key=lambda rank: notes[rank]["seconds"])
        return f"training process {rank} failed: {notes[rank]['said']}"
    if isinstance(failure, ChildFailedError):
        rank, told = failure.get_first_failure()
        code = told.exitcode
    else:
        rank, code = failure.error_index, getattr(failure, "exit_code", 1)
    return _ended(rank, code)


def _ended(rank: int, code: int) -> str:
    """What is known of a process that left no note. code: as Popen has it."""
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return (
        f"training process {rank} {how}, which the system does when memory runs out; give it fewer examples "
        f"(batch_size) or processes, and start again: training goes on from its newest checkpoint"
    )


def _one_child(args: tuple, port: str):
    """One process goes the way of two: in a child, never in the kernel."""
    place = {"rank": 0, "local_rank": 0, "world_size": 1, "master_addr": "127.0.0.1", "master_port": port}
    with patch_environment(**place):
        start_processes(_ignoring_index, args, nprocs=1, start_method="fork")


def _ignoring_index(index: int, *args: Any):
    _noting_failure(*args)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def new_accelerator(config: Train, folder: Path):
    """An Accelerator on DeepSpeed; to be called inside a launched process. folder: of the run, for TensorBoard.

    Precision is left to the student's own autocast: DeepSpeed's would cast the adapter. Only fp16 is DeepSpeed's, which
    then scales the loss. Errors: LaunchError where accelerate gave something else than DeepSpeed on all processes.
    """
    from accelerate import Accelerator, DeepSpeedPlugin, InitProcessGroupKwargs
    from accelerate.utils import DistributedType
    from torch.utils import cpp_extension

    # DeepSpeed has torch compile its extension; torch gives its own folder to the shell as it stands, spaces and all
    cpp_extension.TORCH_LIB_PATH = shlex.quote(cpp_extension.TORCH_LIB_PATH)
    plugin = DeepSpeedPlugin(
        zero_stage=config.zero_stage, gradient_clipping=config.clip, gradient_accumulation_steps=config.accumulate
    )
    plugin.deepspeed_config["train_micro_batch_size_per_gpu"] = config.batch_size
    plugin.deepspeed_config["zero_allow_untested_optimizer"] = True  # Prodigy is one
    if config.precision == "fp16":
        plugin.deepspeed_config["torch_autocast"] = {"enabled": True, "dtype": "float16"}
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    accelerator = Accelerator(
        mixed_precision="no",
        deepspeed_plugin=plugin,
        kwargs_handlers=[InitProcessGroupKwargs(backend=backend, timeout=LONGEST)],
        log_with="tensorboard" if config.tensorboard else None,
        project_dir=folder,
    )
    if config.tensorboard:
        accelerator.init_trackers("tensorboard")
    wanted = int(os.environ["WORLD_SIZE"])
    if accelerator.distributed_type != DistributedType.DEEPSPEED or accelerator.num_processes != wanted:
        raise LaunchError(
            f"asked for DeepSpeed on {wanted} processes, got {accelerator.distributed_type.value} "
            f"on {accelerator.num_processes}; unset ACCELERATE_USE_CPU and start again"
        )
    return accelerator
