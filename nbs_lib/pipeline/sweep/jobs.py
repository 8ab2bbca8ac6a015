"""The runs of a sweep, each a command of its own, so many at a time."""

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from ...config.yaml12 import dump
from ...files import ROOT
from ...run.run import Run
from ...run.terminal_text import printable
from ...run.termination import TerminatedError
from ..notebook import StageError
from ..paths import run_folder
from ..progress import format_duration
from ..runs.table import format_cell, run_values

PATIENCE = 80.0  # seconds that members are given to save and end when the sweep is asked to
SET_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of Linux' prctl."""


@dataclass(frozen=True)
class SweepJob:
    """A run of a sweep: its name, all parameters that differ from the recipe, and those of them that are swept."""

    name: str
    given: dict[str, Any]
    own: dict[str, Any]
    seed: int | None = None

    def options(self) -> list[str]:
        """What follows `onepass run RECIPE`."""
        told = (
            f"{full}={value if isinstance(value, str) else dump(value, inline=True)}"
            for full, value in self.given.items()
        )
        seed = [] if self.seed is None else ["--seed", str(self.seed)]
        return ["--name", self.name, *(part for each in told for part in ("-p", each)), *seed]


def run_jobs(
    recipe: Path, members: list[SweepJob], jobs: int, say: Callable[[str], None]
) -> set[str]:
    """Run them; what each has come to is said when it ends. The names of those that failed, of which a record may still tell
    what an earlier try came to. Errors: StageError where the sweep is interrupted."""
    waiting, at_work, failed, ended = list(members), {}, set(), 0
    begun = {}
    try:
        while waiting or at_work:
            while waiting and len(at_work) < jobs:
                member = waiting.pop(0)
                say(f"      {member.name}: begins")
                begun[member.name], at_work[member.name] = (
                    time.monotonic(),
                    _start(recipe, member, jobs),
                )
            for name, (process, said) in list(at_work.items()):
                if process.poll() is None:
                    continue
                ended += 1
                took = format_duration(time.monotonic() - begun[name])
                came = printable(job_result(name, process.returncode, _lines(said)))
                say(f"[{ended}/{len(members)}] {name}: {came}, {took}")
                if process.returncode:
                    failed.add(name)
                del at_work[name]
            time.sleep(0.05)
        return failed
    except KeyboardInterrupt as stop:
        code = 143 if isinstance(stop, TerminatedError) else 130
        raise StageError(
            "the sweep was interrupted; the same command goes on from there", code
        ) from None
    finally:
        _end([process for process, _ in at_work.values()])


def _start(recipe: Path, member: SweepJob, jobs: int) -> tuple[subprocess.Popen, TextIO]:
    """The member's command, and what it says on its standard error.

    In a session of its own: Ctrl-C comes to it from the sweep alone, and so once. Several share the machine's cores, or their
    threads would wait for one another.
    """
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "nbs_lib",
        "run",
        str(recipe.resolve()),
        *member.options(),
    ]
    threads = (
        {"OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // jobs))} if jobs > 1 else {}
    )
    said = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115  (a pipe that nobody reads would hold the member up)
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said, env=threads | os.environ,
        start_new_session=True, preexec_fn=lambda: ctypes.CDLL(None).prctl(SET_DEATH_SIGNAL, signal.SIGTERM),
    )  # fmt: skip
    return process, said


def _lines(said: TextIO) -> list[str]:
    """What a member said that has ended."""
    with said:
        said.seek(0)
        return said.read().strip().splitlines()


def _end(processes: list[subprocess.Popen]):
    for process in processes:
        process.terminate()  # not SIGINT, which what is begun in the background may have been told to ignore
    end = time.monotonic() + PATIENCE
    for process in processes:
        try:
            process.wait(max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def job_result(name: str, code: int, said: list[str]) -> str:
    """`done` with its loss, or why it failed."""
    if code:
        reason = next(
            (line.removeprefix("onepass: ") for line in said if line.startswith("onepass: ")),
            f"status {code}",
        )
        return f"failed: {reason}"
    values = run_values(Run(run_folder(name)))
    told = next(
        (
            f", {key} {format_cell(key, values[key])}"
            for key in ("held_out", "loss")
            if key in values
        ),
        "",
    )
    return f"done{told}"
