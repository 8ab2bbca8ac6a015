"""A thread that samples beside the page, and can be stopped.

A button's callback does not run while a cell runs, so the jobs that buttons start must not run in
a cell, or a Stop could not arrive.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from threading import Event, Thread


class StoppedError(Exception):
    """The end of a sampling that was asked to stop."""


class SamplingThread:
    """A thread that does one job at a time. It must be created in the thread of the page."""

    def __init__(self):
        self._stop = Event()
        self._thread = None
        self._changes = deque()
        try:
            self._loop = asyncio.get_running_loop()  # a kernel's
        except RuntimeError:
            self._loop = None  # then `wait` makes the changes

    @property
    def busy(self) -> bool:
        """Return True while a job runs."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, job: Callable[[], None]) -> bool:
        """Start a job in the thread; return False if another one runs."""
        if self.busy:
            return False
        self._stop.clear()
        # daemon: a kernel that shuts down must not wait for pictures
        self._thread = Thread(target=job, name="onepass-sampling", daemon=True)
        self._thread.start()
        return True

    def run_here(self, job: Callable[[], None]):
        """Run a job to its end in the caller's thread: a headless notebook waits for pictures."""
        self._stop.clear()
        job()
        self._make_changes()

    def stop(self):
        """Ask the job to end, which it does at its next `check`."""
        self._stop.set()

    def check(self):
        """Raise StoppedError if the job was asked to end."""
        if self._stop.is_set():
            raise StoppedError

    def post(self, change: Callable[[], None]):
        """Queue a change of the page; the page's own thread makes changes in their order."""
        # not made here: two threads that change one widget can lose a change
        self._changes.append(change)
        if self._loop:
            self._loop.call_soon_threadsafe(self._make_changes)

    def wait(self, seconds: float = 600):
        """Wait for the job and make its changes. Errors: TimeoutError."""
        if self._thread:
            self._thread.join(seconds)
        self._make_changes()
        if self.busy:
            raise TimeoutError(f"the pictures are not drawn after {seconds:g} s")

    def _make_changes(self):
        while self._changes:
            self._changes.popleft()()
