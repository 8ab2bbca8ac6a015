"""What ended a training: a note from each process that failed, and one sentence from them all.

A parent learns no more than that a child has failed. So each process leaves `.failed-RANK` in the run's folder, in space
that it took at its start: on a full disk it could write nothing new.
"""

import json
import os
import signal
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from ..run.locks import folder_gone_message as gone_away

RECORD = "run.json"
FAILED = ".failed-"
SPACE = 4096  # bytes taken beforehand for a note
DEADLY = (signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT)
"""Signals that come from outside or from a crash, not from the launcher that ends the rest."""
LOST = (
    "Connection closed by peer",
    "Connection reset by peer",
    "NCCL communicator was aborted",
    "Broken pipe",
)
"""What a process says that fails for want of another one."""
LONGEST = timedelta(hours=6)
"""That a process waits for the others: the main one alone looks, saves and verifies; a host may still be preparing."""
GONE = "is gone"
GO_ON = "start again: training goes on from its newest checkpoint"


class LaunchError(RuntimeError):
    """Processes that cannot be, did not become, or did not do what was asked for."""


class InterruptedTraining(KeyboardInterrupt):
    """The kernel was interrupted while it trained; what is kept, and what to do."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of the frames of torch elastic, which say nothing of a training."""
        return [str(self)]


def interrupted(step: int | None) -> InterruptedTraining:
    """What to raise. step: that of this training's newest checkpoint; None without one, and on a host that cannot tell."""
    kept = f"interrupted: the checkpoint of step {step} is kept; {GO_ON}"
    return InterruptedTraining(kept if step else f"interrupted; {GO_ON}, where there is one")


def take_space(folder: Path):
    """Make room for this process' note."""
    _path(folder).write_bytes(b" " * SPACE)


def record_failure(folder: Path, said: str):
    """Leave what ended this process, in place."""
    content = json.dumps({"seconds": time.time(), "said": said[:500]}).encode()
    with suppress(OSError), _path(folder).open("r+b") as file:
        file.write(content.ljust(SPACE))


def clear_failures(folder: Path):
    """Remove the notes of an earlier training, or of one that went well."""
    for path in folder.glob(f"{FAILED}*"):
        path.unlink(missing_ok=True)


def first_failure(folder: Path, codes: dict[int, int]) -> str:
    """What the first process to fail said, or what is known of one that could say nothing.

    codes: exit codes by rank, as Popen has them, as far as the launcher knows them.
    """
    ranks = _ranks(folder)
    if not ranks and not (folder / RECORD).is_file():  # each process had taken space for its note
        return gone_away(folder)
    killed = [(rank, code) for rank, code in codes.items() if -code in DEADLY]
    if killed:  # the others fail for want of it, and leave notes of that
        return _ended(*killed[0])
    notes = {rank: told for rank in ranks if (told := _read(folder, rank))}
    own = {
        rank: notes[rank] for rank in codes if rank in notes
    }  # that a host is gone, each says of another one
    for said, among in ((_has_a_reason, notes), (_misses_a_host, own), (_misses_a_host, notes)):
        if told := {rank: each for rank, each in among.items() if said(each["said"])}:
            first = min(told, key=lambda rank: told[rank]["seconds"])
            return f"training process {first} failed: {told[first]['said']}"
    silent = [rank for rank in ranks if rank not in notes] or [next(iter(codes), 0)]
    return _ended(silent[0], codes.get(silent[0]))


def processes_gone(host: int) -> str:
    """What to note where a host is missed."""
    return f"host {host} {GONE}: it ended, or cannot be reached; {GO_ON}, on every host"


def _misses_a_host(said: str) -> bool:
    return GONE in said


def _has_a_reason(said: str) -> bool:
    """Of its own: not that another one is missed."""
    return not _misses_a_host(said) and not any(lost in said for lost in LOST)


def _ended(rank: int, code: int | None) -> str:
    """What is known of a process that left no note. code: as Popen has it; None where nobody knows it."""
    if code is None:
        how = "ended without a word"
    else:
        how = (
            f"was ended by {signal.Signals(-code).name}"
            if code < 0
            else f"ended with exit code {code}"
        )
    return (
        f"training process {rank} {how}, which the system does when memory runs out; give it fewer examples "
        f"(batch_size) or processes, and {GO_ON}"
    )


def _path(folder: Path) -> Path:
    return folder / f"{FAILED}{os.environ.get('RANK', 0)}"


def _ranks(folder: Path) -> list[int]:
    found = (path.name.removeprefix(FAILED) for path in folder.glob(f"{FAILED}*"))
    return sorted(int(rank) for rank in found if rank.isdecimal())


def _read(folder: Path, rank: int) -> dict | None:
    try:
        return json.loads((folder / f"{FAILED}{rank}").read_text("utf-8"))
    except (OSError, ValueError):
        return None
