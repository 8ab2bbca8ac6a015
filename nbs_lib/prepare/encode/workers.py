"""Processes that encode side by side: one for each GPU, or for each core.

They are forked, for that takes no time, and started afresh where there are GPUs, which do not survive a fork. Each
has a queue of its own, so what it holds of a chunk is there when the chunk is asked for again.
"""

import ctypes
import multiprocessing
import os
import queue
import signal
import sys
import threading
import traceback
from contextlib import suppress
from multiprocessing.connection import wait
from typing import Any

import torch
from PIL import Image
from torch.multiprocessing import _prctl_pr_set_pdeathsig

from ...models import BaseError, StableDiffusion
from ..examples import ImageRef, SourceError
from .encoder import Encoder, look_at
from .teacher_cache import TeacherCache


class WorkerError(RuntimeError):
    """An encoding process ended before its work was done."""


def worker_count(asked: int) -> int:
    """How many processes: as many as asked for, or one for each GPU or core."""
    return asked or torch.cuda.device_count() or len(os.sched_getaffinity(0))


class WorkerPool:
    """Processes with an encoder each. Replies come in any order; whose they are is said by the number given to `ask`."""

    def __init__(self, base: StableDiffusion, processes: int, batch_size: int):
        cuda = (
            torch.cuda.device_count() > 0
        )  # asked of the driver; a process forked after more than that has no CUDA
        context = multiprocessing.get_context("spawn" if cuda else "fork")
        self.pipes, self.members = [], []
        self.done: dict[int, Any] = {}
        for number in range(processes):
            ours, theirs = context.Pipe()
            member = context.Process(
                target=_work, args=(theirs, base, number, cuda, batch_size), daemon=True
            )
            member.start()
            theirs.close()
            self.pipes.append(ours)
            self.members.append(member)
        # sent by threads: a member may be busy, and its own replies have to be taken meanwhile
        self.orders = [queue.SimpleQueue() for _ in self.pipes]
        for pipe, orders in zip(self.pipes, self.orders, strict=True):
            threading.Thread(target=_send, args=(pipe, orders), daemon=True).start()
        self._next = 0

    def ask(self, member: int, what: str, *given: Any) -> int:
        """Have a member do something; the number of the reply."""
        self._next += 1
        self.orders[member].put((self._next, what, given))
        return self._next

    def reply(self, number: int) -> Any:
        """Wait for a reply. Errors: whatever its work raised; WorkerError where its process ended."""
        while number not in self.done:
            for pipe in wait(self.pipes):
                try:
                    answered, failed, told = pipe.recv()
                except (EOFError, OSError):
                    self._lost(self.pipes.index(pipe))
                if failed:
                    raise told
                self.done[answered] = told
        return self.done.pop(number)

    def _lost(self, member: int):
        self.members[member].join(5)
        code = self.members[member].exitcode
        how = (
            f"was ended by {signal.Signals(-code).name}"
            if code and code < 0
            else f"ended with {code}"
        )
        more = (
            "; memory may have run out: give fewer processes or a smaller batch_size"
            if code == -signal.SIGKILL
            else ""
        )
        raise WorkerError(
            f"encoding process {member} {how}{more}; run this stage again, it goes on where it was"
        ) from None

    def end(self):
        for orders, member in zip(self.orders, self.members, strict=True):
            orders.put(None)
            member.kill()
        for pipe, member in zip(self.pipes, self.members, strict=True):
            member.join(5)
            pipe.close()


def _send(pipe: Any, orders: queue.SimpleQueue):
    while (order := orders.get()) is not None:
        try:
            pipe.send(order)
        except OSError:
            return  # whoever waits for its reply learns of it


def _work(pipe: Any, base: StableDiffusion, number: int, cuda: bool, batch_size: int):
    """What a member does until its pipe is closed. It dies with the one that started it, and leaves interrupts to it."""
    _prctl_pr_set_pdeathsig(signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(
        1
    )  # OpenMP's threads do not survive a fork, and there is a process for each core
    keep_freed_memory()
    sys.stdin = open(os.devnull)  # noqa: SIM115
    device = (
        torch.device("cuda", number % torch.cuda.device_count()) if cuda else torch.device("cpu")
    )
    encoder, held = Encoder(base, device, batch_size), {}
    answers: TeacherCache | None = None
    while True:
        try:
            asked, what, given = pipe.recv()
        except EOFError:
            return
        try:
            if what == "look":
                chunk, places, sizes, hashed, crop = given
                looked = {i: look_at(place, sizes, hashed, crop) for i, place in places.items()}
                held[chunk] = {i: picture for i, (_, picture) in looked.items()}
                told: Any = {i: look for i, (look, _) in looked.items()}
            elif what == "encode":
                chunk, tasks, places, sizes, crop = given
                pictures = held.pop(chunk, {})
                pictures |= {
                    i: look_again(*place, sizes, crop)
                    for i, place in places.items()
                    if pictures.get(i) is None
                }
                for task in tasks:
                    encoder.write_latents(task, pictures)
                told = None
            elif what == "texts":
                told = encoder.write_texts(*given)
            elif what == "decode":
                told = encoder.decoded(*given)
            elif what == "unconditional":
                told = encoder.write_unconditional(*given)
            else:
                answers = answers or TeacherCache(base, device, *given[0])
                told = answers.write(*given[1:])
            pipe.send((asked, False, told))
        except Exception as failure:
            pipe.send((asked, True, _portable(failure)))


def keep_freed_memory():
    """Have the C library keep what is freed for what is asked for next, in place of giving it back to the system each time.

    A VAE takes and frees the same sizes for every batch: given back, its pages are cleared anew by the system a hundred times
    a second, and how much of them a process has at a moment is chance. Source: mallopt(3).
    """
    with suppress(AttributeError, OSError):  # another C library than glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-4, 0)  # M_MMAP_MAX: nothing is mapped apart
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def look_again(place: ImageRef, digest: bytes, sizes: list, crop: int | None = None) -> Image.Image:
    """The picture of an image that was looked at before. Errors: SourceError where it is not what it was then."""
    look, picture = look_at(place, sizes, crop=crop)
    if picture is None or look.digest != digest:
        raise SourceError(
            f"{place.name!r} was changed or removed while it was being prepared; run this stage again"
        )
    return picture


def _portable(failure: Exception) -> Exception:
    """What went wrong, as something that travels to another process."""
    if isinstance(failure, BaseError | SourceError):
        return type(failure)(str(failure))
    if isinstance(failure, OSError) and failure.errno:
        return OSError(failure.errno, failure.strerror, str(failure.filename or ""))
    traceback.print_exception(failure)
    return WorkerError(f"encoding failed: {type(failure).__name__}: {failure}")
