"""The processes of a stage: the one module that starts them.

    notebook    forked out of the kernel by accelerate's notebook_launcher
    subprocess  new ones from accelerate's own launch, for kernels that hold what a fork cannot keep

Both run the same function in every process, on torch elastic. One process is started like two,
always as a child. Every import here happens before the fork, so it must start no thread and touch
no device.
"""

import gc
import json
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from accelerate.utils import patch_environment
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.multiprocessing import _prctl_pr_set_pdeathsig

from ..config import Prepare, Train
from ..run.run import Run
from ..run.stage_recording import stage_name
from .errors import (
    LaunchError,
    clear_failures,
    first_failure,
    first_line,
    record_failure,
    reserve_failure_note,
)
from .multinode import network_interface
from .preflight import port_of, process_count
from .start import PATIENCE, Inputs, Job, fork_processes, start_processes

# The result that the main process leaves in the run's folder.
RESULT_FILE = ".launched.json"
# Signals whose handlers torch elastic replaces.
HANDLED_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def launch(function: Callable, config: Train | Prepare, run: Run, inputs: Inputs) -> dict:
    """Run `function(config, run, inputs)` in every process; return what the main one has written.

    That is the content of `RESULT_FILE`, and {} on another host than the main one.
    Errors: LaunchError, with the reason of the first process that failed; KeyboardInterrupt when
    this process was asked to stop and all of them have ended.
    """
    result_path = run.folder / RESULT_FILE
    forked = isinstance(config, Prepare) or config.launcher == "notebook"
    # a preparation's process has workers of its own, one for each GPU
    processes = 1 if isinstance(config, Prepare) else process_count(config)
    interface, address = network_interface(config)
    job = Job(run_in_process, (function, config, run, inputs), processes, address, port_of(config))
    # the files of an earlier training would be taken for those of this one
    if config.node_rank == 0:
        result_path.unlink(missing_ok=True)
        clear_failures(run.folder)
    start = fork_processes if forked else start_processes
    try:
        with _restored_process(), patch_environment(**_environment(config, interface)):
            codes = start(job)
    except (KeyboardInterrupt, SignalException):  # the second is torch elastic's, for any signal
        raise KeyboardInterrupt from None
    except torch.distributed.DistError as failure:  # of the static rendezvous' store
        if not config.node_rank:
            raise LaunchError(f"master_port: {job.port} cannot be listened on: {failure}") from None
        raise LaunchError(
            f"host 0 was not met at {config.master_addr}:{job.port}; start the same command there"
        ) from None
    if codes:
        raise LaunchError(first_failure(run.folder, codes, stage_name(config)))
    if config.node_rank:
        return {}
    clear_failures(run.folder)
    result = json.loads(result_path.read_text("utf-8"))
    result_path.unlink()
    return result


def _environment(config: Train | Prepare, interface: str | None) -> dict[str, str]:
    """Return the environment variables of the processes."""
    variables = {
        "omp_num_threads": "1",
        "tokenizers_parallelism": "false",
        "torch_elastic_shutdown_timeout": str(int(PATIENCE)),
        **engine_environment(),
    }
    for name in ("gloo_socket_ifname", "nccl_socket_ifname"):
        # a cluster's own setting is for several hosts; one host listens on the loopback alone
        if interface and (config.num_nodes == 1 or name.upper() not in os.environ):
            variables[name] = interface
    return variables


def engine_environment() -> dict[str, str]:
    """Return the variables without which DeepSpeed warns in every process that it found no GPU."""
    return {} if torch.cuda.device_count() else {"ds_accelerator": "cpu"}


@contextmanager
def _restored_process() -> Iterator[None]:
    """Restore the signal handlers and the environment, which torch elastic changes for good."""
    handlers = {number: signal.getsignal(number) for number in HANDLED_SIGNALS}
    variables = set(os.environ)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for name in set(os.environ) - variables:
            del os.environ[name]


def run_in_process(function: Callable, config: Train | Prepare, run: Run, inputs: Inputs):
    """Run the function in a process of a stage, and note the reason if it fails."""
    # the process dies with the one that started it; torch asks for SIGINT then, which a process
    # that waits for another one never takes
    _prctl_pr_set_pdeathsig(signal.SIGKILL)
    # Python would look through all objects of the kernel again and again, and copy their pages
    gc.freeze()
    torch.set_num_threads(_thread_count(config))
    reserve_failure_note(run.folder)
    # DeepSpeed calls functions that torch has renamed
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    # accelerate chose that device
    barrier = r"barrier\(\): using the device"
    warnings.filterwarnings("ignore", message=barrier, category=UserWarning)
    try:
        function(config, run, inputs)
    except Exception as failure:
        record_failure(run.folder, f"{type(failure).__name__}: {first_line(failure)}")
        raise


def _thread_count(config: Train | Prepare) -> int:
    """Return the threads of a process."""
    # OpenMP's threads do not survive a fork: a process with more than one would wait for them for
    # ever. In new processes beside GPUs, the CPU's only work is to step an offloaded optimizer.
    offloads = isinstance(config, Train) and config.offload and config.launcher == "subprocess"
    if not (offloads and torch.cuda.device_count()):
        return 1
    return max(1, (os.cpu_count() or 1) // int(os.environ["LOCAL_WORLD_SIZE"]))
