"""Sampling beside the page: one thread, and a Stop that works.

A button's callback does not run while a cell runs, so what a button starts must not run in one, or Stop could not be heard.
What the thread has to say is done in the thread of the page, where the widgets' own messages arrive: two threads that change
one widget can lose a change.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from threading import Event, Thread


class StoppedError(Exception):
    """Raised out of a sampling that was asked to stop."""


class SamplingThread:
    """Does one job at a time. To be made in the thread of the page."""

    def __init__(self):
        self._asked, self._thread, self._said = Event(), None, deque()
        try:
            self._loop = asyncio.get_running_loop()  # a kernel's
        except RuntimeError:
            self._loop = None  # without one, `wait` does what the thread had to say

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self, job: Callable[[], None]) -> bool:
        """Do a job beside the page. False where one is being done."""
        if self.busy:
            return False
        self._asked.clear()
        self._thread = Thread(target=job, name="onepass-drawer", daemon=True)
        self._thread.start()
        return True

    def here(self, job: Callable[[], None]):
        """Do a job in this thread, to its end: a notebook that runs headlessly waits for its pictures."""
        self._asked.clear()
        job()
        self._pump()

    def stop(self):
        """Ask the job to end; it does at its next `check`."""
        self._asked.set()

    def check(self):
        """Errors: StoppedError where the job was asked to end."""
        if self._asked.is_set():
            raise StoppedError

    def tell(self, change: Callable[[], None]):
        """Have a change of the page done, in the order of the calls, in the page's own thread."""
        self._said.append(change)
        if self._loop:
            self._loop.call_soon_threadsafe(self._pump)

    def wait(self, seconds: float = 600):
        """Wait for the job, and for what it had to say. Errors: TimeoutError."""
        if self._thread:
            self._thread.join(seconds)
        self._pump()
        if self.busy:
            raise TimeoutError(f"the pictures are not drawn after {seconds:g} s")

    def _pump(self):
        while self._said:
            self._said.popleft()()
