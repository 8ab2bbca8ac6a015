"""Execution of one notebook by papermill, in a kernel whose output goes to the run's log."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from ..config.validation import COMMAND

# seconds a cell may take, so that no headless run waits for ever
CELL_TIMEOUT = 24 * 3600
# seconds a kernel has to deliver what a cell has printed.
# Jupyter's 4 seconds are too few on a busy machine
OUTPUT_TIMEOUT = 60
# starts of a kernel that dies before it replies: another process took one of its ports first
KERNEL_STARTS = 3
# papermill's own 60 s are too few where the libraries are read from a slow disk
START_TIMEOUT = 300
DEAD_BEFORE_REPLY = "Kernel died before replying"


class Log:
    """log.txt of a run: the command's lines with the time, and the notebooks' output.

    Each try appends to it. A full disk does not end a run because of its log.
    """

    def __init__(self, path: Path):
        self.path = path

    def write(self, text: str):
        """Append a notebook's output."""
        with suppress(OSError), self.path.open("a", encoding="utf-8", errors="replace") as file:
            file.write(text)

    def flush(self):
        """Do nothing: papermill asks for it, and each write closes the file."""

    def say(self, line: str):
        """Append a line of the command, with the time."""
        self.write(f"{datetime.now().astimezone().isoformat(timespec='seconds')}  {line}\n")


def run_notebook(
    source: Path,
    target: Path,
    parameters: dict,
    log: Log,
    shutdown_timeout: float,
):
    """Execute `source` with `parameters` and write the executed notebook to `target`.

    shutdown_timeout: seconds the kernel has to end when it is asked to

    Errors: papermill's and Jupyter's.
    """
    with _without_grammars():
        import papermill
    # it warns of each parameter that a notebook's cell does not list
    logging.getLogger("papermill").setLevel(logging.ERROR)
    from traitlets.config import Config

    for start in range(1, KERNEL_STARTS + 1):
        try:
            return papermill.execute_notebook(
                _without_fields(source),
                _without_fields(target),
                parameters=parameters,
                kernel_name="python3",
                cwd=source.parent,
                start_timeout=START_TIMEOUT,
                execution_timeout=CELL_TIMEOUT,
                progress_bar=False,
                # otherwise each printed line would be an output of its own
                coalesce_streams=True,
                stdout_file=log,
                stderr_file=log,
                # without this the kernel logs what the notebook shows anyway
                extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
                iopub_timeout=OUTPUT_TIMEOUT,
                kernel_manager_class=_logged_kernel(log.path),
                config=Config(KernelManager={"shutdown_wait_time": shutdown_timeout}),
            )
        except RuntimeError as failure:
            if start == KERNEL_STARTS or DEAD_BEFORE_REPLY not in str(failure):
                raise


@contextmanager
def _without_grammars() -> Iterator[None]:
    """Hide rfc3987_syntax from the imports in the context.

    jsonschema imports it if it is installed, for the format `iri`, which notebooks do not have.
    """
    # compiling its grammars was most of the time that papermill takes to import
    absent = sys.modules.setdefault("rfc3987_syntax", None) is None
    try:
        yield
    finally:
        if absent:
            del sys.modules["rfc3987_syntax"]


def _logged_kernel(log: Path) -> type:
    """Return a kernel manager class that sends the kernel process's own output to the log."""
    from jupyter_client import AsyncKernelManager

    class LoggedKernelManager(AsyncKernelManager):
        async def start_kernel(self, **options: Any):
            environment = (options.pop("env", None) or os.environ) | {COMMAND: "1"}
            # a kernel may print while it ends; otherwise that would be among the command's lines
            with log.open("ab") as file:
                await super().start_kernel(stdout=file, stderr=file, env=environment, **options)

    return LoggedKernelManager


def _without_fields(path: Path) -> str:
    """Return a path for papermill, which would replace {NAME} in it by a parameter."""
    return str(path).replace("{", "{{").replace("}", "}}")
