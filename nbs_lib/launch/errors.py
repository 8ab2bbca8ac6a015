"""The errors that end a stage, and the notes in which processes leave the reason.

A parent learns only that a child failed. So each process leaves `.failed-RANK` in the run's folder,
in space that it reserves at its start: on a full disk it could write nothing new.
"""

import json
import os
import signal
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from ..run.locks import folder_gone_message

NOTE_PREFIX = ".failed-"
NOTE_SIZE = 4096  # bytes that are reserved for a note
MAX_MESSAGE = 500  # characters, so that a note always fits
# Signals that come from outside or from a crash, not from the launcher that ends the rest.
DEADLY_SIGNALS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT)
# Parts of the messages of a process that fails because another one is missing.
DISCONNECTED = (
    "Connection closed by peer",
    "Connection reset by peer",
    "NCCL communicator was aborted",
    "Broken pipe",
)
# The longest wait of a process for the others.
# The main process validates, saves and verifies alone, and another host may still be preparing.
COLLECTIVE_TIMEOUT = timedelta(hours=6)
GONE = "is gone"
RESUME_HINT = "start again: training goes on from its newest checkpoint"
# Each stage's name for its work in a message, and what to do when a process has failed.
NOUNS = {"prepare": "preparation", "train": "training"}
HINTS = {"prepare": "start again: preparation goes on where it was", "train": RESUME_HINT}


class LaunchError(RuntimeError):
    """Processes that cannot start as the parameters say, or that failed."""


class InterruptedTraining(KeyboardInterrupt):
    """An interrupt of the kernel during a training: the checkpoint's step, and what to do."""

    def _render_traceback_(self) -> list[str]:
        """Return the lines that IPython shows instead of torch elastic's frames."""
        return [str(self)]


def interrupted_error(step: int | None) -> InterruptedTraining:
    """Return the error of an interrupted training.

    step: of its newest checkpoint; None without one, and on a host that cannot know it.
    """
    if not step:
        return InterruptedTraining(f"interrupted; {RESUME_HINT}, if there is one")
    return InterruptedTraining(f"interrupted: the checkpoint of step {step} is kept; {RESUME_HINT}")


def reserve_failure_note(folder: Path):
    """Write an empty note of this process into the run's folder."""
    _note_path(folder).write_bytes(b" " * NOTE_SIZE)


def record_failure(folder: Path, message: str):
    """Write the reason why this process ends into its note."""
    note = {"time": time.time(), "message": message[:MAX_MESSAGE]}
    # in place: a new file would need space that a full disk does not have
    with suppress(OSError), _note_path(folder).open("r+b") as file:
        file.write(json.dumps(note).encode().ljust(NOTE_SIZE))


def clear_failures(folder: Path):
    """Remove all notes of a run."""
    for path in folder.glob(f"{NOTE_PREFIX}*"):
        path.unlink(missing_ok=True)


def first_failure(folder: Path, codes: dict[int, int], stage: str = "train") -> str:
    """Return in one sentence why a stage failed: the reason of the first process that did.

    codes: exit codes by rank, as Popen has them, as far as the launcher knows them.
    """
    ranks = _ranks(folder)
    # every process has reserved a note, so without notes and record the folder is another one
    if not ranks and not (folder / "run.json").is_file():
        return folder_gone_message(folder)
    killed = [(rank, code) for rank, code in codes.items() if -code in DEADLY_SIGNALS]
    if killed:
        # the others fail because it is missing, and their notes say only that
        return _silent_end(*killed[0], stage)
    notes = {rank: note for rank in ranks if (note := _read_note(folder, rank))}
    # this host's notes first: about a missing host, each host names another one
    local = {rank: notes[rank] for rank in codes if rank in notes}
    for matches, candidates in (
        (_is_root_cause, notes),
        (_names_missing_host, local),
        (_names_missing_host, notes),
    ):
        matching = [rank for rank, note in candidates.items() if matches(note["message"])]
        if matching:
            first = min(matching, key=lambda rank: notes[rank]["time"])
            return f"{NOUNS[stage]} process {first} failed: {notes[first]['message']}"
    silent = [rank for rank in ranks if rank not in notes] or [next(iter(codes), 0)]
    return _silent_end(silent[0], codes.get(silent[0]), stage)


def missing_host_message(host: int, stage: str) -> str:
    """Return the note of a process that has lost the connection to a host."""
    return f"host {host} {GONE}: it ended, or cannot be reached; {HINTS[stage]}, on every host"


def first_line(failure: BaseException) -> str:
    """Return the first line of an error's message, "" if it has none."""
    # a compiler's whole output may follow it
    return (str(failure).strip().splitlines() or [""])[0]


def _names_missing_host(message: str) -> bool:
    return GONE in message


def _is_root_cause(message: str) -> bool:
    """Return True unless the process failed because another one is missing."""
    return not _names_missing_host(message) and not any(text in message for text in DISCONNECTED)


def _silent_end(rank: int, code: int | None, stage: str) -> str:
    """Return the sentence about a process that left no note. code: None if nobody knows it."""
    if code is None:
        end = "ended without a message"
    elif code < 0:
        end = f"was ended by {signal.Signals(-code).name}"
    else:
        end = f"ended with exit code {code}"
    return (
        f"{NOUNS[stage]} process {rank} {end}, which the system does when memory runs out; give it "
        f"fewer examples (batch_size) or processes, and {HINTS[stage]}"
    )


def _note_path(folder: Path) -> Path:
    return folder / f"{NOTE_PREFIX}{os.environ.get('RANK', 0)}"


def _ranks(folder: Path) -> list[int]:
    suffixes = [path.name.removeprefix(NOTE_PREFIX) for path in folder.glob(f"{NOTE_PREFIX}*")]
    return sorted(int(suffix) for suffix in suffixes if suffix.isdecimal())


def _read_note(folder: Path, rank: int) -> dict | None:
    """Return a note, None if it is still empty."""
    try:
        return json.loads((folder / f"{NOTE_PREFIX}{rank}").read_text("utf-8"))
    except (OSError, ValueError):
        return None
