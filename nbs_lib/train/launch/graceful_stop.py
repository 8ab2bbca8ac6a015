"""Stopping between two steps: what the processes agree on in each of them.

A process that is asked to end (SIGINT, SIGTERM) would leave the others waiting for it for ever. So all learn of it in that
step or the next one, save together and end; a process that does not get that far in time ends where it stands. Where steps are
slow there is more time, for what would be lost is worth more.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch

from ...config import Train
from ..errors import GO_ON, LONGEST

GRACE = 4.0  # seconds from being asked to end until the process ends, whatever it is doing
LONGEST_GRACE = 50.0  # where steps take long, or a checkpoint is being written; launchers and schedulers wait longer
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StoppedError(RuntimeError):
    """Raised in every process when one was asked to end, after a checkpoint was saved."""


class StopCoordinator:
    """Decides after each step whether to save and whether to end; the same in every process.

    To be made before the first thread of its process: signals are then taken by a thread of its own, which works while the
    others are in a library's code.
    """

    def __init__(self, config: Train):
        self.config, self.asked, self.steps_have_begun, self.ended = config, False, False, False
        self.slowest, self._saves = (
            0.0,
            False,
        )  # slowest: seconds from one step's end to the next one's
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        threading.Thread(target=self._take, daemon=True).start()

    def begin(self, first: int):
        """The first step is next. Every process must call this."""
        several = torch.distributed.get_world_size() > 1
        # of its own: it holds numbers of the CPU, for which no GPU has to be waited for
        self.group = (
            torch.distributed.new_group(backend="gloo", timeout=LONGEST) if several else None
        )
        self.saved_at, self.saved = time.monotonic(), first
        self.step_ended, self.steps_have_begun = time.monotonic(), True

    def ask(self, step: int, seen: torch.Tensor):
        """Tell the others, in the middle of a step, while all go on with it. Every process must call this once a step.

        seen: numbers that are summed over the processes; they could be of anything, and travel for nothing here.
        """
        every, minutes = self.config.checkpointing_steps, self.config.checkpoint_minutes
        # each has a clock of its own
        due = (
            every
            and step % every == 0
            or minutes
            and time.monotonic() - self.saved_at >= 60 * minutes
        )
        due = (
            due or (every or minutes) and step == self.config.steps
        )  # before what is done at the end, which takes its time
        self.told = torch.cat([torch.tensor([bool(due), self.asked]), seen.flatten()])
        self.asking = (
            torch.distributed.all_reduce(self.told, group=self.group, async_op=True)
            if self.group
            else None
        )

    def agreed(self, step: int) -> tuple[bool, bool, torch.Tensor]:
        """Whether to save after this step, whether to end then, and the sums of what was seen, flat."""
        if self.asking:
            self.asking.wait()
        now = time.monotonic()
        self.slowest, self.step_ended = max(self.slowest, now - self.step_ended), now
        due, stop = (self.told[:2] > 0).tolist()
        stop = stop and step < self.config.steps
        save = (due or stop) and self.saved < step
        if save:
            self.saved_at, self.saved = now, step
        return save, stop, self.told[2:]

    @contextmanager
    def saving(self) -> Iterator[None]:
        """While a checkpoint is written, which is given its time."""
        self._saves = True
        yield
        self._saves = False

    def over(self):
        """The work is done: the process ends by itself now. One that was ended while it waits for its launcher to hear of it
        would be waited for by the launcher for ever."""
        self.ended = True

    def _take(self):
        signal.sigwait(SIGNALS)
        self.asked, asked_at = True, time.monotonic()
        while self.steps_have_begun and time.monotonic() - asked_at < self._grace():
            time.sleep(0.05)
        if self.ended:
            return
        for child in psutil.Process().children(recursive=True):
            child.kill()  # a compiler that DeepSpeed called
        os._exit(128 + signal.SIGTERM)

    def _grace(self) -> float:
        """Seconds from being asked to end: enough for the step that goes on and another one, and to save then."""
        return LONGEST_GRACE if self._saves else min(max(GRACE, 2 * self.slowest), LONGEST_GRACE)


def stop_error(step: int) -> StoppedError:
    """What to raise after the checkpoint of a step."""
    return StoppedError(f"it was asked to end; a checkpoint of step {step} is kept; {GO_ON}")
