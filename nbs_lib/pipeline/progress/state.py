"""The progress of a stage at a moment, in words."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

Say = Callable[[str], None]


@dataclass(frozen=True)
class Progress:
    """The progress of a stage at a moment.

    stage: its name, "" of a run that has begun none
    seconds: since it began
    activity: what it does or waits for
    fraction: of its steps or pictures that are finished, 0 to 1, None if it counts nothing yet
    facts: count, loss, rate and time left, those that there are
    """

    stage: str
    seconds: float
    activity: str
    fraction: float | None = None
    facts: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = ", ".join([self.activity, *self.facts])
        return f"{self.stage} {format_duration(self.seconds)}: {text}".lstrip()


def print_progress(line: str):
    """Print a line. Once nobody reads the lines any more, print nothing, so the stage goes on."""
    try:
        print(line, flush=True)
    except OSError:
        # the reader is gone, or the disk that the lines go to is full
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115


def format_duration(seconds: float) -> str:
    """Return `4 s`, `3 min 20 s` or `2 h 5 min`."""
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
