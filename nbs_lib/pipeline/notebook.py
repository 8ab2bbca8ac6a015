"""One notebook through papermill: its log, its page, and what became of it."""

import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from ..config.validation import COMMAND, as_parameters
from ..files import from_project
from ..run.disk_space import explain_shortage
from ..run.locks import folder_gone_message
from ..run.run import REFUSALS, STAGE_LOCK, Run
from ..run.termination import TerminatedError
from .notebook_html import write_page
from .paths import notebooks
from .progress import Progress

CELL_TIMEOUT = 24 * 3600  # seconds; no headless run waits for ever
ORPHANS = 60.0  # seconds, as below, that the kernel of a killed command is given to end
OUTPUT = 60  # that a kernel is given to hand on what a cell has printed; Jupyter's 4 are too few on a busy machine
SHUTDOWN = 140.0  # that one that trains is given when it is asked to; after half of them it is asked again, and must be done
STARTS, UNBORN = 3, "Kernel died before replying"
"""How often a kernel is started that ends before it has begun: of the ports that were chosen for it, another process may take
one before it does, as where several runs begin at once."""
MEMORY = "most often memory ran out: a smaller batch_size or resolution needs less of it"
REFUSED, STOPPED = "CheckpointError", ("KeyboardInterrupt", "InterruptedTraining")
"""What a notebook fails with where it would lose an unfinished training, and where its kernel was told to stop."""
INPUT = ("ParameterError", *REFUSALS, "ClipError")
"""What a notebook fails with where what was given cannot be used: a wrong parameter, a base or a source that is not there."""
COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class StageError(RuntimeError):
    """A stage's notebook did not come to its end; its executed notebook shows where. said: why, in words; code: the command's
    exit status; name: of the error that ended it, "" where there was none."""

    def __init__(self, said: str, code: int = 1, notebook: Path | None = None, name: str = ""):
        super().__init__(f"{said}\n{notebook} shows where" if notebook else said)
        self.said, self.code, self.name = said, code, name

    @property
    def refused(self) -> bool:
        """Whether what was asked for cannot be done to this run, which is as it was before."""
        return self.name == REFUSED


class Log:
    """log.txt of a run: what its command says, with the time, and what its notebooks print, as they print it.

    It goes on from try to try. A disk that is full does not end a run because of its log.
    """

    def __init__(self, path: Path):
        self.path, self.seen = path, ""

    def write(self, text: str):
        """Printed by a notebook. seen: the last line of it."""
        self.seen = (self.seen + COLOURS.sub("", text))[-2000:]
        self._add(text)

    def flush(self):
        pass  # papermill asks for it; every write is one

    def say(self, line: str):
        self.seen = ""
        self._add(f"{datetime.now().astimezone().isoformat(timespec='seconds')}  {line}\n")

    def _add(self, text: str):
        with suppress(OSError), self.path.open("a", encoding="utf-8", errors="replace") as file:
            file.write(text)


def execute(run: Run, stage: str, config: Any, say: Callable[[str], None] | None = None):
    """One notebook through papermill, which tells of its progress if it is given where to. Errors: StageError, with the
    notebook kept; RunError where another process works on the run."""
    host = getattr(config, "node_rank", 0)
    notebook = run.notebook(stage)
    if host:
        run.folder.mkdir(parents=True, exist_ok=True)
        run.check_links()
        notebook = notebook.with_stem(f"{notebook.stem}-host{host}")
    else:
        with run.exclusive(STAGE_LOCK, ORPHANS):
            pass  # refused here, before the notebook of the stage that is at work is written over
    before = run.stage_record(stage)
    log = Log(run.log if not host else run.log.with_stem(f"log-host{host}"))
    try:
        with Progress(run, stage, config, log, say):
            shutdown = SHUTDOWN if stage == "train" else 5.0  # Jupyter's own
            parameters = as_parameters(config) | {"run": from_project(run.folder)}
            _papermill(run.notebook(stage).name, notebook, parameters, log, shutdown)
    except BaseException as failure:
        said, code = _settle(run, stage, failure, None if host else before)
        log.say(said)
        raise StageError(said, code, notebook, getattr(failure, "ename", "")) from failure
    finally:
        with suppress(Exception):  # a page that cannot be made is no reason for a stage to fail
            write_page(notebook)


@contextmanager
def _without_grammars() -> Iterator[None]:
    """Without rfc3987_syntax for a while, which jsonschema imports if it is there, and which then compiles its grammars, in
    every command: most of the time that papermill takes to import. They are for `iri`, a format that notebooks do not have."""
    absent = sys.modules.setdefault("rfc3987_syntax", None) is None
    try:
        yield
    finally:
        if absent:
            del sys.modules["rfc3987_syntax"]


def _kernels(log: Path) -> type:
    """Kernels whose process writes into the log what it says beside its notebook, as one may while it ends: it would else
    be among what the command says."""
    from jupyter_client import AsyncKernelManager

    class LoggedKernel(AsyncKernelManager):
        async def start_kernel(self, **given: Any):
            environment = (given.pop("env", None) or os.environ) | {COMMAND: "1"}
            with log.open("ab") as said:
                await super().start_kernel(stdout=said, stderr=said, env=environment, **given)

    return LoggedKernel


def _verbatim(path: Path) -> str:
    """Return a path as papermill takes it, which fills in parameters between braces."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _papermill(name: str, notebook: Path, parameters: dict[str, Any], log: Log, shutdown: float):
    """shutdown: seconds that the kernel is given to end when it is asked to."""
    with _without_grammars():
        import papermill
    logging.getLogger("papermill").setLevel(
        logging.ERROR
    )  # it warns of each parameter that a cell does not list
    from traitlets.config import Config

    begin = partial(
        papermill.execute_notebook,
        *map(_verbatim, (notebooks() / name, notebook)),
        parameters=parameters,
        kernel_name="python3",
        cwd=notebooks(),
        execution_timeout=CELL_TIMEOUT,
        progress_bar=False,
        coalesce_streams=True,
        stdout_file=log,
        stderr_file=log,
        extra_arguments=["--IPKernelApp.log_level=CRITICAL"],  # it logs what the notebook shows
        iopub_timeout=OUTPUT,
        kernel_manager_class=_kernels(log.path),
        config=Config(KernelManager={"shutdown_wait_time": shutdown}),
    )
    for left in reversed(range(STARTS)):
        try:
            return begin()
        except RuntimeError as failure:
            if not left or UNBORN not in str(failure):
                raise


def _code(name: str) -> int:
    """Return the status that a command ends with whose notebook failed with an error of that name."""
    return 2 if name in INPUT else 1


def _settle(
    run: Run, stage: str, failure: BaseException, before: dict[str, Any] | None
) -> tuple[str, int]:
    """What ended a stage in words, and the status that the command ends with. Where a kernel could not note it, it is noted:
    it was killed, or failed before it began to take notes. before: the stage's record by then; None where another keeps it."""
    from papermill.exceptions import PapermillExecutionError

    if before is not None and not run.folder.is_dir():
        return f"{stage} failed: {folder_gone_message(run.folder)}", 1
    if isinstance(failure, PapermillExecutionError) and failure.ename not in STOPPED:
        said = ": ".join(filter(None, [failure.ename, failure.evalue])) + explain_shortage(
            failure.evalue, run.folder
        )
        if before is not None and run.stage_record(stage) == before and failure.ename != REFUSED:
            with suppress(OSError):
                run.update(name=run.name, status="failed")
        return (
            f"{stage} failed: {said}{f'; {MEMORY}' if failure.ename == 'MemoryError' else ''}",
            _code(failure.ename),
        )
    status, told = "failed", {}
    if isinstance(
        failure, KeyboardInterrupt | PapermillExecutionError
    ):  # here, or in the kernel alone
        status, said = (
            "interrupted",
            f"{stage} was interrupted; the same command goes on from there",
        )
    elif isinstance(failure, Exception):  # the kernel died, a cell took too long, the disk is full
        said = f"{type(failure).__name__}: {str(failure).strip().partition(chr(10))[0]}{explain_shortage(failure, run.folder)}"
        if type(failure).__name__ == "DeadKernelError":
            said += f"; {MEMORY}"
        told = {"error": said}
        said = f"{stage} failed: {said}"
    else:
        raise failure
    if before is not None:
        with suppress(OSError):  # a full disk is no reason to hide what happened
            run.settle(stage, status, **told)
    return said, {False: 1, True: 143 if isinstance(failure, TerminatedError) else 130}[
        status == "interrupted"
    ]
