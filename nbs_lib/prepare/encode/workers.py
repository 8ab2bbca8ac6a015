"""The pool of worker processes: one for each GPU, or for each core.

Workers are forked, because that takes no time, and spawned if there are GPUs, because CUDA does not
survive a fork. Each has a queue of its own, so jobs with the same key go to the same worker.
"""

import multiprocessing
import os
import queue
import signal
import threading
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from ...models import StableDiffusion
from ..hosts.share import Hosts
from .worker_process import WorkerError, serve

# More would hold more pictures, fewer would leave workers idle while the main process filters.
QUEUED = 3  # unfinished jobs for each worker


def count_workers(requested: int) -> int:
    """Return the number of workers: the requested one, or one for each GPU or core."""
    return requested or torch.cuda.device_count() or len(os.sched_getaffinity(0))


class WorkerPool:
    """Processes that do the jobs of `Worker`. They start with the first job.

    hosts: of which each has such a pool, for the chunks and shards that it owns.
    """

    def __init__(self, base: StableDiffusion, n_workers: int, batch_size: int, hosts: Hosts):
        self.base = base
        self.n_workers = n_workers
        self.batch_size = batch_size
        self.hosts = hosts
        self._processes: list[multiprocessing.Process] = []
        self._pipes: list[Connection] = []
        self._orders: list[queue.SimpleQueue] = []
        self._results: dict[int, Any] = {}
        self._unfinished: deque[tuple[int, Callable]] = deque()
        self._last_ticket = 0

    def submit(self, key: int, job: str, *arguments: Any) -> int:
        """Queue a job for the worker of a key. Returns the ticket of its result.

        key: of a chunk or shard that this host owns.
        """
        if not self._processes:
            self._start()
        self._last_ticket += 1
        ticket = self._last_ticket
        orders = self._orders[self.hosts.queue(key) % self.n_workers]
        orders.put((ticket, job, arguments))
        return ticket

    def result(self, ticket: int) -> Any:
        """Wait for a result. Errors: the job's own; WorkerError if its process ended."""
        # Results of other jobs may come first, as workers differ in speed.
        while ticket not in self._results:
            for pipe in wait(self._pipes):
                try:
                    finished_ticket, failed, result = pipe.recv()
                except (EOFError, OSError):
                    raise self._explain_end(self._pipes.index(pipe)) from None
                if failed:
                    raise result
                self._results[finished_ticket] = result
        return self._results.pop(ticket)

    def run(self, key: int, job: str, *arguments: Any, then: Callable = lambda: None):
        """Queue a job without a result, and wait while too many are unfinished.

        then: called when the job has finished.
        """
        ticket = self.submit(key, job, *arguments)
        self._unfinished.append((ticket, then))
        # A bounded queue: the source is read no faster than the workers encode.
        while len(self._unfinished) > QUEUED * self.n_workers:
            self._finish_one()

    def ask_all(self, job: str) -> list[Any]:
        """Return the results of a job that every worker does; [] if none was started."""
        tickets = [self.submit(number, job) for number in range(len(self._processes))]
        return [self.result(ticket) for ticket in tickets]

    def finish(self):
        """Wait for all jobs of `run`."""
        while self._unfinished:
            self._finish_one()

    def end(self):
        """Kill the processes."""
        for orders, process in zip(self._orders, self._processes, strict=True):
            orders.put(None)  # ends the thread that sends
            process.kill()
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            process.join(5)
            pipe.close()
        self._processes = []
        self._pipes = []
        self._orders = []

    def _start(self):
        # The count comes from the driver: after any other use of CUDA a forked process has none.
        cuda = torch.cuda.device_count() > 0
        context = multiprocessing.get_context("spawn" if cuda else "fork")
        for number in range(self.n_workers):
            pipe, theirs = context.Pipe()
            arguments = (theirs, self.base, number, cuda, self.batch_size)
            process = context.Process(target=serve, args=arguments, daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(pipe)
            self._processes.append(process)
        # Threads start after all forks. They send, because a busy worker does not read its pipe,
        # and its results have to be read meanwhile.
        for pipe in self._pipes:
            orders = queue.SimpleQueue()
            self._orders.append(orders)
            threading.Thread(target=_send, args=(pipe, orders), daemon=True).start()

    def _finish_one(self):
        ticket, then = self._unfinished.popleft()
        self.result(ticket)
        then()

    def _explain_end(self, number: int) -> WorkerError:
        process = self._processes[number]
        process.join(5)
        code = process.exitcode
        ending = f"ended with {code}"
        advice = ""
        if code and code < 0:
            ending = f"was ended by {signal.Signals(-code).name}"
        if code == -signal.SIGKILL:
            advice = "; memory may have run out: give fewer processes or a smaller batch_size"
        return WorkerError(
            f"encoding process {number} {ending}{advice}; "
            "run this stage again, it goes on where it was"
        )


def _send(pipe: Connection, orders: queue.SimpleQueue):
    while (order := orders.get()) is not None:
        try:
            pipe.send(order)
        except OSError:
            return  # the next read of this pipe reports the end of its process
