"""The two ways to start the processes: forked from this one, or new from accelerate's launch."""

import codecs
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass

from accelerate import launchers, notebook_launcher
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from torch.multiprocessing import _prctl_pr_set_pdeathsig
from torch.numa.binding import AffinityMode, NumaOptions

from ..config import Prepare, Train
from ..files import write_atomic
from ..run.run import Run
from ..run.stage_recording import stage_name
from .errors import COLLECTIVE_TIMEOUT, NOUNS
from .rendezvous import use_local_rendezvous

# The order of new processes, a file in the run's folder for each host.
ORDER_PREFIX = ".launch-"
# Seconds in which processes have to end when they are asked to; see `graceful_stop` for theirs.
PATIENCE = 60.0
RENDEZVOUS_TIMEOUT = int(COLLECTIVE_TIMEOUT.total_seconds())
Inputs = dict[str, str]  # hashes of everything that a stage depends on


@dataclass(frozen=True)
class Job:
    """The work of the processes on this host.

    entry: called in each process with `arguments`: a function, the parameters, the run, its inputs.
    processes: on this host.
    address, port: of the rendezvous, on host 0.
    """

    entry: Callable
    arguments: tuple[Callable, Train | Prepare, Run, Inputs]
    processes: int
    address: str
    port: int


def fork_processes(job: Job) -> dict[int, int]:
    """Fork the processes; return the exit codes by rank if some failed."""
    config = job.arguments[1]
    # it calls every process a CUDA one
    launchers.print = lambda *_: None
    noun = NOUNS[stage_name(config)]
    print(f"{noun} on {job.processes} process{'es' * (job.processes > 1)}", flush=True)
    try:
        use_local_rendezvous()
        with _quiet_elastic():
            # notebook_launcher runs one process, and on Colab two without a GPU each, in the kernel
            # itself; torch elastic, on which it stands, starts these as children
            if job.processes > 1 and "google.colab" not in sys.modules:
                notebook_launcher(
                    job.entry,
                    job.arguments,
                    job.processes,
                    use_port=str(job.port),
                    rdzv_conf={"timeout": float(RENDEZVOUS_TIMEOUT)},
                    num_nodes=config.num_nodes,
                    node_rank=config.node_rank,
                    master_addr=job.address,
                )
            else:
                elastic_launch(_elastic_config(job, config), job.entry)(*job.arguments)
    except ChildFailedError as failure:
        return {rank: child.exitcode for rank, child in failure.failures.items()}
    return {}


def _elastic_config(job: Job, config: Train | Prepare) -> LaunchConfig:
    elastic = LaunchConfig(
        min_nodes=config.num_nodes,
        max_nodes=config.num_nodes,
        nproc_per_node=job.processes,
        run_id="none",
        rdzv_endpoint=f"{job.address}:{job.port}",
        rdzv_backend="static",
        rdzv_configs={"rank": config.node_rank, "timeout": float(RENDEZVOUS_TIMEOUT)},
        max_restarts=0,
        monitor_interval=0.1,
        start_method="fork",
        # without any, it would ask CUDA for them, which a forked process does not survive
        numa_options=NumaOptions(AffinityMode.NODE),
    )
    elastic.numa_options = None
    return elastic


@contextmanager
def _quiet_elastic() -> Iterator[None]:
    """Silence torch elastic's warnings that it stops the processes it was told to stop."""
    names = ("agent.server.api", "multiprocessing.api")
    loggers = [logging.getLogger(f"torch.distributed.elastic.{name}") for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def start_processes(job: Job) -> dict[int, int]:
    """Start new processes and print their output; return the exit codes by rank if some failed."""
    function, config, run, inputs = job.arguments
    order_path = run.folder / f"{ORDER_PREFIX}{config.node_rank}.json"
    name = f"{function.__module__}:{function.__qualname__}"
    order = {"function": name, "config": asdict(config), "inputs": inputs}
    write_atomic(order_path, json.dumps(order))
    # in a new session, so that an interrupt reaches it only from here; it ends with this process
    child = subprocess.Popen(
        _launch_command(job, config, str(order_path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=lambda: _prctl_pr_set_pdeathsig(signal.SIGTERM),
    )
    try:
        # as the output comes: whole lines would hold back the progress bar
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while part := os.read(child.stdout.fileno(), 1 << 16):
            print(decoder.decode(part), end="", flush=True)
        code = child.wait()
        if not code:
            return {}
        # the launcher has put the exit codes in the order's place, unless it failed itself
        content = json.loads(order_path.read_text("utf-8"))
        if "function" in content:
            return {0: code}
        return {int(rank): code for rank, code in content.items()}
    finally:
        _end(child)
        order_path.unlink(missing_ok=True)


def _launch_command(job: Job, config: Train, order: str) -> list[str]:
    """Return the command line of `subprocess_launcher`."""
    options = {
        "--deepspeed_multinode_launcher": "standard",
        "--num_processes": job.processes * config.num_nodes,
        "--num_machines": config.num_nodes,
        "--machine_rank": config.node_rank,
        "--main_process_ip": job.address,
        "--main_process_port": job.port,
        "--rdzv_backend": "static",
        "--rdzv_conf": f"timeout={RENDEZVOUS_TIMEOUT}",
        "--mixed_precision": "no",
        "--dynamo_backend": "no",
    }
    launcher = [sys.executable, "-W", "ignore", "-m", f"{__package__}.subprocess_launcher", order]
    # it starts torch elastic for one process too; the variables that it sets are cleared in each
    # process, see `new_accelerator`
    arguments = ["--use_deepspeed"]
    for option, value in options.items():
        arguments += [option, str(value)]
    return [*launcher, *arguments, "--module", f"{__package__}.subprocess_worker", order]


def _end(child: subprocess.Popen):
    """Ask a launcher and its processes to end; kill the whole group if they do not."""
    if child.poll() is None:
        child.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            child.wait(PATIENCE)
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
