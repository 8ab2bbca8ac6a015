"""The stop between two steps, on which the processes agree in each of them.

A process that is asked to end (SIGINT, SIGTERM) would leave the others waiting for it for ever. So
all learn of it in that step or the next one, save together and end. A process that does not get
that far in time ends where it is. Slow steps get more time, because more would be lost.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch
from torch import Tensor, distributed

from ..config import Train
from .errors import COLLECTIVE_TIMEOUT, RESUME_HINT

GRACE = 4.0  # seconds from the signal to the end of the process, whatever it is doing
LONGEST_GRACE = 50.0  # for slow steps and checkpoints; launchers and schedulers wait longer
SIGNALS = (signal.SIGINT, signal.SIGTERM)
POLL = 0.05  # seconds


class StoppedError(RuntimeError):
    """The end of a training whose process was asked to end; a checkpoint was saved."""


class StopCoordinator:
    """The decision after each step to save and to end, the same in every process."""

    def __init__(self, config: Train):
        """Start the thread that takes the signals; to be called before any other thread starts."""
        self.config = config
        self.requested = False
        self.training = False
        self.finished = False
        self._saving = False
        self._slowest_step = 0.0  # seconds
        # other threads inherit the mask. The one that waits for signals works while the others are
        # in a library's code.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        threading.Thread(target=self._wait_for_signal, daemon=True).start()

    def begin(self, first: int):
        """Start the clocks before the first step. Every process must call this.

        first: steps that are finished already.
        """
        self.group = None
        if distributed.get_world_size() > 1:
            # a separate group, for numbers on the CPU: no GPU has to be waited for
            self.group = distributed.new_group(backend="gloo", timeout=COLLECTIVE_TIMEOUT)
        self._saved_at = self._step_ended = time.monotonic()
        self._saved_step = first
        self.training = True

    @property
    def saves(self) -> bool:
        """Return True if the training writes checkpoints."""
        return bool(self.config.checkpointing_steps or self.config.checkpoint_minutes)

    def start_vote(self, step: int, totals: Tensor):
        """Send this process' vote, in the middle of a step. Every process must call this in each.

        totals: numbers that are summed over the processes; they travel for free here.
        """
        vote = torch.tensor([self._save_is_due(step), self.requested])
        self._votes = torch.cat([vote, totals.flatten()])
        self._pending = None
        if self.group:
            # asynchronous, so that nobody waits for it during the backward pass
            self._pending = distributed.all_reduce(self._votes, group=self.group, async_op=True)

    def _save_is_due(self, step: int) -> bool:
        every = self.config.checkpointing_steps
        minutes = self.config.checkpoint_minutes
        if not self.saves:
            return False
        # before the final checks, which take their time
        if step == self.config.steps:
            return True
        if every and step % every == 0:
            return True
        return bool(minutes) and time.monotonic() - self._saved_at >= 60 * minutes

    def decision(self, step: int) -> tuple[bool, bool, Tensor]:
        """Return whether to save now, whether to end then, and the summed totals, flat."""
        if self._pending:
            self._pending.wait()
        now = time.monotonic()
        self._slowest_step = max(self._slowest_step, now - self._step_ended)
        self._step_ended = now
        # one vote decides: each process has its own clock, and only one may get the signal
        due, stop = (self._votes[:2] > 0).tolist()
        # after the last step it ends anyway
        stop = stop and step < self.config.steps
        save = (due or stop) and self._saved_step < step
        if save:
            self._saved_at = now
            self._saved_step = step
        return save, stop, self._votes[2:]

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Extend the time until a forced end while a checkpoint is written."""
        self._saving = True
        yield
        self._saving = False

    def finish(self):
        """Ignore signals from here on, because the process is about to end by itself."""
        # a launcher would wait for ever for a process that is ended while it waits for the launcher
        self.finished = True

    def _wait_for_signal(self):
        signal.sigwait(SIGNALS)
        self.requested = True
        requested_at = time.monotonic()
        while self.training and time.monotonic() - requested_at < self._grace():
            time.sleep(POLL)
        if self.finished:
            return
        # a compiler that DeepSpeed called
        for child in psutil.Process().children(recursive=True):
            child.kill()
        os._exit(128 + signal.SIGTERM)

    def _grace(self) -> float:
        """Return seconds that are enough for this step, another one and a checkpoint."""
        if self._saving:
            return LONGEST_GRACE
        return min(max(GRACE, 2 * self._slowest_step), LONGEST_GRACE)


def stop_error(step: int) -> StoppedError:
    """Return the error to raise after the checkpoint of a step."""
    return StoppedError(f"asked to end; a checkpoint of step {step} is kept; {RESUME_HINT}")
