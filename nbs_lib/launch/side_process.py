"""A function called in a process beside the kernel, which comes back as clean as it was.

A kernel that has used a GPU, autograd or OpenMP's threads cannot fork processes that train. So
whatever computes before a training does it here, and its memory is free again when it ends.
"""

import gc
import logging
import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch


def call_in_process(
    function: Callable[..., bytes], *arguments: Any, start_method: str = "fork"
) -> bytes:
    """Return what a function returns in a process of its own; nothing here is touched.

    start_method: "spawn" for a kernel that holds what a fork cannot keep; it takes seconds.
    Errors: RuntimeError with the reason, if the function or the process failed.
    """
    context = multiprocessing.get_context(start_method)
    receiver, sender = context.Pipe(duplex=False)
    arguments = (sender, function, arguments)
    process = context.Process(target=_send_result, args=arguments, daemon=True)
    process.start()
    # so that the pipe ends if the process is killed
    sender.close()
    try:
        failure, content = _receive(receiver)
    except BaseException:
        # an interrupt of the kernel, which need not wait for the answer any more
        process.terminate()
        raise
    process.join()
    if failure:
        raise RuntimeError(failure)
    return content


def _receive(receiver: Connection) -> tuple[str, bytes]:
    try:
        failure = receiver.recv_bytes().decode()
        return failure, b"" if failure else receiver.recv_bytes()
    except EOFError:
        return "it was ended", b""


def _send_result(sender: Connection, function: Callable[..., bytes], arguments: tuple):
    # see `launcher.run_in_process`
    gc.freeze()
    # OpenMP's threads do not survive a fork
    torch.set_num_threads(1)
    # libraries comment on work that is no training
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    logging.disable()
    try:
        content = function(*arguments)
    except Exception as failure:
        sender.send_bytes(f"{type(failure).__name__}: {failure}".encode())
    else:
        # no failure
        sender.send_bytes(b"")
        sender.send_bytes(content)
