"""The runs of a sweep, each a command in its own process, several at a time."""

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from ...config.yaml12 import dump
from ...files import ROOT
from ...run.run import Run
from ...run.terminal_text import printable
from ...run.termination import TerminatedError
from ..notebook import StageError
from ..paths import run_folder
from ..progress import Progress, Say, format_duration
from ..progress.display import show_progress
from ..progress.reader import RunProgress
from ..runs.table import format_cell, run_values

# seconds that interrupted members have to save and end
STOP_TIMEOUT = 80.0
POLL_INTERVAL = 0.05
# PR_SET_PDEATHSIG of Linux' prctl
SET_DEATH_SIGNAL = 1


@dataclass(frozen=True)
class SweepJob:
    """A run of a sweep.

    name: the run's
    parameters: all that differ from the recipe
    swept: those with several values in the sweep
    seed: sets every seed
    """

    name: str
    parameters: dict
    swept: dict
    seed: int | None = None

    def options(self) -> list[str]:
        """Return the options after `onepass run RECIPE`."""
        options = ["--name", self.name]
        for name, value in self.parameters.items():
            text = value if isinstance(value, str) else dump(value, inline=True)
            options += ["-p", f"{name}={text}"]
        if self.seed is not None:
            options += ["--seed", str(self.seed)]
        return options

    def as_dict(self) -> dict:
        """Return the job as plain values, under the names that `onepass sweep --json` prints."""
        fields = {"name": self.name, "given": self.parameters, "own": self.swept}
        return fields | {"seed": self.seed}


@dataclass(frozen=True)
class RunningJob:
    """A job's process, the file with its standard error, the time it began, and its progress."""

    process: subprocess.Popen
    errors: TextIO
    start: float
    progress: RunProgress


def run_jobs(
    recipe: Path,
    jobs: list[SweepJob],
    n_parallel: int,
    say: Say,
) -> set[str]:
    """Run the jobs and return the names of those that failed.

    The record of a failed job may still hold the result of an earlier try.

    say: prints a line when a job begins and when it ends, and shows the progress of those between

    Errors: StageError if the sweep is interrupted.
    """
    running: dict[str, RunningJob] = {}

    def read() -> dict[str, Progress]:
        # a copy, because jobs begin and end meanwhile
        return {name: job.progress.read() for name, job in running.copy().items()}

    try:
        with show_progress(read, say):
            return _run_all(recipe, jobs, n_parallel, running, say)
    except KeyboardInterrupt as stop:
        code = 143 if isinstance(stop, TerminatedError) else 130
        message = "the sweep was interrupted; the same command goes on from there"
        raise StageError(message, code) from None
    finally:
        _stop([job.process for job in running.values()])


def _run_all(
    recipe: Path,
    jobs: list[SweepJob],
    n_parallel: int,
    running: dict[str, RunningJob],
    say: Say,
) -> set[str]:
    """Run the jobs and return the names of those that failed. running: holds those that run."""
    waiting = list(jobs)
    failed = set()
    while waiting or running:
        while waiting and len(running) < n_parallel:
            job = waiting.pop(0)
            say(f"      {job.name}: begins")
            running[job.name] = _start(recipe, job, n_parallel)
        for name in [name for name, job in running.items() if job.process.poll() is not None]:
            ended = running.pop(name)
            number = len(jobs) - len(waiting) - len(running)
            say(f"[{number}/{len(jobs)}] {name}: {_describe_end(name, ended)}")
            if ended.process.returncode:
                failed.add(name)
        # waiting for one process would miss that another has ended
        time.sleep(POLL_INTERVAL)
    return failed


def _start(recipe: Path, job: SweepJob, n_parallel: int) -> RunningJob:
    environment = dict(os.environ)
    if n_parallel > 1:
        # jobs that share the cores must share the threads too, or they wait for one another
        threads = max(1, len(os.sched_getaffinity(0)) // n_parallel)
        environment.setdefault("OMP_NUM_THREADS", str(threads))
    command = [sys.executable, "-W", "ignore", "-m", "nbs_lib", "run", str(recipe.resolve())]
    # a file, because a pipe that nobody reads would block the job
    errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
    process = subprocess.Popen(
        command + job.options(),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=errors,
        env=environment,
        # in its own session the job gets Ctrl-C only from the sweep, and so only once
        start_new_session=True,
        # a job must not outlive a sweep that is killed
        preexec_fn=lambda: ctypes.CDLL(None).prctl(SET_DEATH_SIGNAL, signal.SIGTERM),
    )
    progress = RunProgress(Run(run_folder(job.name)))
    return RunningJob(process, errors, time.monotonic(), progress)


def _describe_end(name: str, job: RunningJob) -> str:
    with job.errors as file:
        # the process has left the position at the end
        file.seek(0)
        lines = file.read().strip().splitlines()
    result = printable(job_result(name, job.process.returncode, lines))
    return f"{result}, {format_duration(time.monotonic() - job.start)}"


def _stop(processes: list[subprocess.Popen]):
    for process in processes:
        # not SIGINT: a process started in the background may ignore that
        process.terminate()
    end = time.monotonic() + STOP_TIMEOUT
    for process in processes:
        try:
            process.wait(max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def job_result(name: str, code: int, errors: list[str]) -> str:
    """Return `done` with the job's loss, or the reason for its failure.

    errors: lines of its standard error
    """
    if code:
        prefix = "onepass: "
        reasons = [line.removeprefix(prefix) for line in errors if line.startswith(prefix)]
        return f"failed: {reasons[0] if reasons else f'status {code}'}"
    # without held-out examples a training has only its own loss
    values = run_values(Run(run_folder(name)))
    for key in ("held_out", "loss"):
        if key in values:
            return f"done, {key} {format_cell(key, values[key])}"
    return "done"
