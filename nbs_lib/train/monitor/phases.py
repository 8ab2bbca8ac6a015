"""Stages of a training: each process marks what it begins, in a file of the run that the kernel reads meanwhile.

    {"rank": 0, "of": 2, "pid": 4711, "stage": "validate", "time": 81234.5}

of: how many processes this host has. time: seconds of the monotonic clock, which all processes of a host share and which
nobody sets.
"""

import json
import os
import time
from typing import Any

from ...run.run import Run

STAGES = ("build", "train", "validate", "checkpoint", "finish")
FILE = ".stages.jsonl"


def mark_phase(run: Run, stage: str):
    """Note that this process begins one of STAGES. Every process must call it with "build" before anything else.

    Processes of other hosts than the first note nothing: their pids and clocks mean nothing to its kernel.
    """
    if os.environ.get("GROUP_RANK", "0") != "0":
        return
    rank, of = int(os.environ.get("RANK", 0)), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    line = json.dumps(
        {"rank": rank, "of": of, "pid": os.getpid(), "stage": stage, "time": time.monotonic()}
    )
    with (run.folder / FILE).open(
        "ab", buffering=0
    ) as file:  # one write at the file's end: lines do not mix
        file.write(line.encode() + b"\n")


class PhaseReader:
    """What is marked from now on; earlier marks are removed."""

    def __init__(self, run: Run):
        self.path, self.read = run.folder / FILE, 0
        self.remove()

    def new(self) -> list[dict[str, Any]]:
        """The marks since the last call."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self.read)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self.read += len(whole)
        return [json.loads(line) for line in whole.splitlines()]

    def remove(self):
        self.path.unlink(missing_ok=True)
