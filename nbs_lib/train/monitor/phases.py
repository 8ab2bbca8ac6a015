"""The phases of a training, which each process marks in a file of the run and the kernel reads.

    {"rank": 0, "of": 2, "pid": 4711, "stage": "validate", "time": 81234.5}

of: number of processes of this host.
time: seconds of the monotonic clock, which all processes of a host share and which nobody sets.
"""

import json
import os
import time

from ...run.run import Run

PHASES = ("build", "train", "validate", "checkpoint", "finish")
MARKS_FILE = ".stages.jsonl"


def mark_phase(run: Run, phase: str):
    """Mark that this process begins one of PHASES; the first one that it marks is "build"."""
    # pids and clocks of other hosts mean nothing to host 0's kernel
    if os.environ.get("GROUP_RANK", "0") != "0":
        return
    mark = {
        "rank": int(os.environ.get("RANK", 0)),
        "of": int(os.environ.get("LOCAL_WORLD_SIZE", 1)),
        "pid": os.getpid(),
        "stage": phase,
        "time": time.monotonic(),
    }
    # unbuffered: one write at the file's end, so that the lines of processes do not mix
    with (run.folder / MARKS_FILE).open("ab", buffering=0) as file:
        file.write(json.dumps(mark).encode() + b"\n")


class PhaseReader:
    """The marks from now on; earlier ones are removed."""

    def __init__(self, run: Run):
        """Remove the marks of an earlier training."""
        self.path = run.folder / MARKS_FILE
        self._offset = 0
        self.remove()

    def new_marks(self) -> list[dict]:
        """Return the marks since the last call."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self._offset)
            content = file.read()
        # the last line may be half written
        complete = content[: content.rfind(b"\n") + 1]
        # the next call reads on from here
        self._offset += len(complete)
        return [json.loads(line) for line in complete.splitlines()]

    def remove(self):
        """Remove the file of the marks."""
        self.path.unlink(missing_ok=True)
