"""Processes: the one module that starts them.

    notebook    forked out of the kernel by accelerate's notebook_launcher
    subprocess  started afresh by accelerate's own launch, for kernels that hold what a fork does not survive

Both run the same function in every process, on torch elastic; one process goes the way of two, always in a child. What is
imported here is imported before the fork, so it must start no thread and touch no device.
"""

import codecs
import fcntl
import gc
import json
import logging
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import launchers, notebook_launcher
from accelerate.utils import patch_environment
from torch._appdirs import user_cache_dir
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from torch.multiprocessing import _prctl_pr_set_pdeathsig
from torch.numa.binding import AffinityMode, NumaOptions

from ...config import Train
from ...files import value_hash, write_atomic
from ...run.run import Run
from ..checkpoint.checkpoint import candidates
from ..errors import (
    LONGEST,
    LaunchError,
    clear_failures,
    first_failure,
    interrupted,
    record_failure,
    take_space,
)
from .multinode import meeting_point
from .preflight import path_with_python, port_of, process_count
from .rendezvous import on_one_address

RESULT, ORDER = ".launched.json", ".launch-"
"""What the main process leaves in the run's folder, and what a process started afresh is to do, by its host."""
TAKEN_OVER = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
PATIENCE = 60.0  # seconds that processes are given to end when they are asked to, which is more than they take: see `stop`


def launch(function: Callable, config: Train, run: Run, inputs: dict[str, str]) -> dict[str, Any]:
    """Run `function(config, run, inputs)` in every process; what the main one left in the run's file `.launched.json`.

    On another host than the main one: {}. Errors: LaunchError, which says what the first process to fail said;
    InterruptedTraining, a KeyboardInterrupt, where this process was told to stop, when all of them have ended.
    """
    processes, (way, address), port = process_count(config), meeting_point(config), port_of(config)
    if config.node_rank == 0:
        (run.folder / RESULT).unlink(missing_ok=True)
        clear_failures(run.folder)
    handlers, names = {each: signal.getsignal(each) for each in TAKEN_OVER}, set(os.environ)
    environment = {
        "path": path_with_python(),
        "omp_num_threads": 1,
        "tokenizers_parallelism": "false",
    }
    environment["torch_extensions_dir"] = str(_extensions())
    environment["torch_elastic_shutdown_timeout"] = str(int(PATIENCE))
    environment |= engine_environment()
    if way:  # what a cluster has set for several hosts is no reason to listen there on one
        ways = ("gloo_socket_ifname", "nccl_socket_ifname")
        environment |= {
            name: way for name in ways if config.num_nodes == 1 or name.upper() not in names
        }
    start = _fork if config.launcher == "notebook" else _start_afresh
    try:
        with (
            _compiling_alone() if config.deepspeed else nullcontext(),
            patch_environment(**environment),
            _elastic_in_silence(),
        ):
            codes = start(function, (config, run, inputs), processes, (address, port))
    except (KeyboardInterrupt, SignalException):  # the second is torch elastic's, of any signal
        # one of another training, which may lie there too, would not be gone on from
        kept = next(
            iter(
                candidates(
                    run.checkpoints,
                    inputs,
                    replace(config, num_processes=processes * config.num_nodes),
                )
            ),
            None,
        )
        raise interrupted(kept.step if kept else None) from None
    except torch.distributed.DistError as failure:  # of the static rendezvous' store
        if not config.node_rank:
            raise LaunchError(f"master_port: {port} cannot be listened on: {failure}") from None
        raise LaunchError(
            f"host 0 was not met at {config.master_addr}:{port}; start the same training there"
        ) from None
    finally:
        for (
            each,
            handler,
        ) in handlers.items():  # torch elastic leaves its own, and variables of its own
            signal.signal(each, handler)
        for name in set(os.environ) - names:
            del os.environ[name]
    if codes:
        raise LaunchError(first_failure(run.folder, codes))
    if config.node_rank:
        return {}
    clear_failures(run.folder)
    launched = json.loads((run.folder / RESULT).read_text("utf-8"))
    (run.folder / RESULT).unlink()
    return launched


def engine_environment() -> dict[str, str]:
    """What DeepSpeed is to be told, or it would warn in every process that it found no GPU."""
    return {} if torch.cuda.device_count() else {"ds_accelerator": "cpu"}


def _fork(
    function: Callable, args: tuple[Train, Run, dict], processes: int, place: tuple[str, int]
) -> dict[int, int]:
    """Fork the processes; exit codes by rank where they failed.

    notebook_launcher runs one process, and on Colab two without a GPU each, in the kernel itself: these are left to torch
    elastic, on which it stands.
    """
    config, (address, port) = args[0], place
    launchers.print = lambda *_: None  # it calls every process a CUDA
    print(f"training on {processes} process{'es' * (processes > 1)}", flush=True)
    nodes = {"num_nodes": config.num_nodes, "node_rank": config.node_rank, "master_addr": address}
    waiting = {"timeout": LONGEST.total_seconds()}
    try:
        on_one_address()
        if processes > 1 and "google.colab" not in sys.modules:
            notebook_launcher(
                in_process, (function, *args), processes, use_port=str(port), rdzv_conf=waiting, **nodes
            )  # fmt: skip
        else:
            how = LaunchConfig(
                min_nodes=config.num_nodes, max_nodes=config.num_nodes, nproc_per_node=processes, run_id="none",
                rdzv_endpoint=f"{address}:{port}", rdzv_backend="static", max_restarts=0, monitor_interval=0.1,
                rdzv_configs={"rank": config.node_rank} | waiting, start_method="fork",
                numa_options=NumaOptions(AffinityMode.NODE),
            )  # fmt: skip
            how.numa_options = None  # without any, it would have asked CUDA, which a forked process does not survive
            elastic_launch(how, in_process)(function, *args)
    except ChildFailedError as failure:
        return {rank: told.exitcode for rank, told in failure.failures.items()}
    return {}


def _start_afresh(
    function: Callable, args: tuple[Train, Run, dict], processes: int, place: tuple[str, int]
) -> dict[int, int]:
    """Have accelerate start the processes; exit codes by rank where they failed. What they print is printed here."""
    (config, run, inputs), (address, port) = args, place
    order = run.folder / f"{ORDER}{config.node_rank}.json"
    of = f"{function.__module__}:{function.__qualname__}"
    write_atomic(order, json.dumps({"function": of, "config": asdict(config), "inputs": inputs}))
    # --use_deepspeed for torch elastic, which it starts for one process too; what it sets is cleared in each process
    command = [
        sys.executable, "-W", "ignore", "-m", f"{__package__}.subprocess_launcher", str(order), "--use_deepspeed",
        "--deepspeed_multinode_launcher", "standard", "--num_processes", str(processes * config.num_nodes),
        "--num_machines", str(config.num_nodes), "--machine_rank", str(config.node_rank),
        "--main_process_ip", address, "--main_process_port", str(port), "--rdzv_backend", "static",
        "--rdzv_conf", f"timeout={int(LONGEST.total_seconds())}", "--mixed_precision", "no", "--dynamo_backend", "no",
        "--module", f"{__package__}.subprocess_worker", str(order),
    ]  # fmt: skip
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        preexec_fn=lambda: _prctl_pr_set_pdeathsig(signal.SIGTERM),
    )  # fmt: skip
    try:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while part := os.read(child.stdout.fileno(), 1 << 16):
            print(decoder.decode(part), end="", flush=True)
        if not (code := child.wait()):
            return {}
        told = json.loads(order.read_text("utf-8"))
        return {0: code} if "function" in told else {int(rank): code for rank, code in told.items()}
    finally:
        _end(child)
        order.unlink(missing_ok=True)


def _end(child: subprocess.Popen):
    """Ask a launcher and its processes to end; the whole group is killed when they do not."""
    if child.poll() is None:
        child.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            child.wait(PATIENCE)
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()


def in_process(function: Callable, config: Train, run: Run, inputs: dict[str, str]):
    """The function in a process of a training, which leaves a note of what ended it.

    The process dies with the one that started it. torch asks for SIGINT then, which a process that waits for another one
    never takes.
    """
    _prctl_pr_set_pdeathsig(signal.SIGKILL)
    gc.freeze()  # or Python would look through all that the kernel had again and again, and copy its memory by that
    torch.set_num_threads(_threads(config))
    take_space(run.folder)
    # DeepSpeed calls what torch has given another name since
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    warnings.filterwarnings(
        "ignore", message=r"barrier\(\): using the device", category=UserWarning
    )  # accelerate chose it
    try:
        function(config, run, inputs)
    except Exception as failure:
        said = (str(failure).strip().splitlines() or [""])[
            0
        ]  # a compiler's whole output stands above it
        record_failure(run.folder, f"{type(failure).__name__}: {said}")
        raise


def _threads(config: Train) -> int:
    """Threads of a process: one, for OpenMP's do not survive a fork, and it would wait for them for ever; but where GPUs
    compute and processes are started afresh, the CPU's only work is to step what is offloaded to it."""
    if not (config.offload and config.launcher == "subprocess" and torch.cuda.device_count()):
        return 1
    return max(1, (os.cpu_count() or 1) // int(os.environ["LOCAL_WORLD_SIZE"]))


def _extensions() -> Path:
    """Where torch keeps what it compiles: each Python environment has its own, or two would overwrite one another's."""
    given = os.environ.get("TORCH_EXTENSIONS_DIR")
    # torch's own folder for them; torch.utils.cpp_extension tells it, but may touch CUDA when it is imported
    own = Path(user_cache_dir("torch_extensions")).resolve()
    return Path(given or own / f"onepass-{value_hash(sys.prefix)[:8]}")


@contextmanager
def _elastic_in_silence() -> Iterator[None]:
    """Without torch elastic's warnings that it stops what it was told to stop."""
    loggers = [
        logging.getLogger(f"torch.distributed.elastic.{name}")
        for name in ("agent.server.api", "multiprocessing.api")
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _compiling_alone() -> Iterator[None]:
    """Clear away locks that killed processes left on torch's extensions: torch would wait for their end for ever.

    They are known to be left behind where no other training is there, which would hold our own lock beside them.
    """
    root = _extensions()
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as failure:
        raise LaunchError(
            f"{root} cannot be made, where DeepSpeed's extensions are compiled: {failure.strerror}; name another folder in "
            "TORCH_EXTENSIONS_DIR, or give deepspeed = False"
        ) from None
    with (root / "onepass.lock").open("a") as file:
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for left in root.rglob("lock"):
                left.unlink(missing_ok=True)
        fcntl.flock(file, fcntl.LOCK_SH)
        yield
