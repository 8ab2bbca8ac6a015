"""Execution of one stage's notebook: its log, its page, and the record of a failure."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from ..config.validation import as_parameters
from ..files import from_project
from ..run.disk_space import explain_shortage
from ..run.locks import folder_gone_message
from ..run.run import REFUSALS, STAGE_LOCK, Run
from ..run.termination import TerminatedError
from .kernel import Log, run_notebook
from .notebook_html import write_page
from .paths import notebooks
from .progress import Say
from .progress.display import show_progress
from .progress.reader import ProgressReader

# seconds the kernel of a killed command has to end before its run is refused
ORPHAN_TIMEOUT = 60.0
# seconds the kernel of a training has to end when it is asked to.
# a training's launcher asks its processes again after half of this, and they must be done by then
TRAIN_SHUTDOWN_TIMEOUT = 140.0
# the same for the other stages, Jupyter's default
SHUTDOWN_TIMEOUT = 5.0
# the error of a notebook that refuses to replace an unfinished training
WOULD_LOSE_TRAINING = "CheckpointError"
# errors of a notebook whose kernel was asked to stop
STOPPED = ("KeyboardInterrupt", "InterruptedTraining")
# errors of a notebook that was given a wrong parameter, base or source
INPUT_ERRORS = ("ParameterError", *REFUSALS, "ClipError")
OUT_OF_MEMORY = "; most often memory ran out: a smaller batch_size or resolution needs less of it"


class StageError(RuntimeError):
    """A failed or interrupted stage. Its executed notebook shows where it ended.

    message: the reason
    code: exit status for the command
    name: name of the error that ended the notebook, "" if there was none
    """

    def __init__(
        self,
        message: str,
        code: int = 1,
        notebook: Path | None = None,
        name: str = "",
    ):
        super().__init__(f"{message}\n{notebook} shows where" if notebook else message)
        self.message = message
        self.code = code
        self.name = name

    @property
    def refused(self) -> bool:
        """True if the stage refused the request and left the run as it was."""
        return self.name == WOULD_LOSE_TRAINING


def execute(
    run: Run,
    stage: str,
    config: Any,
    say: Say | None = None,
):
    """Execute a stage's notebook.

    say: prints lines about the progress, None for no progress

    Errors: StageError, with the executed notebook kept; RunError if another process works on the
    run.
    """
    notebook = run.notebook(stage)
    log = Log(run.log)
    before = None
    if host := getattr(config, "node_rank", 0):
        # on a shared disk the files of the run are the first host's, and so is its record
        run.folder.mkdir(parents=True, exist_ok=True)
        run.check_links()
        notebook = notebook.with_stem(f"{notebook.stem}-host{host}")
        log = Log(run.log.with_stem(f"log-host{host}"))
    else:
        # refuse here, before the executed notebook of the other process is overwritten
        with run.exclusive(STAGE_LOCK, ORPHAN_TIMEOUT):
            before = run.stage_record(stage)
    shutdown_timeout = TRAIN_SHUTDOWN_TIMEOUT if stage == "train" else SHUTDOWN_TIMEOUT
    parameters = as_parameters(config) | {"run": from_project(run.folder)}
    source = notebooks() / run.notebook(stage).name
    try:
        reader = ProgressReader(run, stage, log.path)
        with show_progress(lambda: {"": reader.read()}, say):
            run_notebook(source, notebook, parameters, log, shutdown_timeout)
    except BaseException as failure:
        message, code = _record_failure(run, stage, failure, before)
        log.say(message)
        raise StageError(message, code, notebook, getattr(failure, "ename", "")) from failure
    finally:
        # a stage does not fail because its page cannot be made
        with suppress(Exception):
            write_page(notebook)


def _record_failure(
    run: Run,
    stage: str,
    failure: BaseException,
    before: dict | None,
) -> tuple[str, int]:
    """Return why a stage ended and the exit status, and update run.json if the kernel did not.

    before: the stage's record before it was executed, None on a host that keeps no record
    """
    from papermill.exceptions import PapermillExecutionError

    if before is not None and not run.folder.is_dir():
        return f"{stage} failed: {folder_gone_message(run.folder)}", 1
    in_a_cell = isinstance(failure, PapermillExecutionError)
    if in_a_cell and failure.ename not in STOPPED:
        return _record_cell_error(run, stage, failure, before)
    if in_a_cell or isinstance(failure, KeyboardInterrupt):
        # the signal reached this process, or the kernel alone
        _settle(run, stage, before, "interrupted")
        code = 143 if isinstance(failure, TerminatedError) else 130
        return f"{stage} was interrupted; the same command goes on from there", code
    if not isinstance(failure, Exception):
        raise failure
    # papermill failed: the kernel died, a cell took too long, or the disk is full
    # the rest is a traceback, which is in the notebook
    first_line = str(failure).strip().partition("\n")[0]
    error = f"{type(failure).__name__}: {first_line}{explain_shortage(failure, run.folder)}"
    if type(failure).__name__ == "DeadKernelError":
        error += OUT_OF_MEMORY
    _settle(run, stage, before, "failed", error=error)
    return f"{stage} failed: {error}", 1


def _record_cell_error(
    run: Run,
    stage: str,
    failure: Any,
    before: dict | None,
) -> tuple[str, int]:
    error = ": ".join(filter(None, [failure.ename, failure.evalue]))
    error += explain_shortage(failure.evalue, run.folder)
    if failure.ename == "MemoryError":
        error += OUT_OF_MEMORY
    # an unchanged record: the notebook failed before the stage began to keep it
    unrecorded = before is not None and run.stage_record(stage) == before
    if unrecorded and failure.ename != WOULD_LOSE_TRAINING:
        with suppress(OSError):
            run.update(name=run.name, status="failed")
    return f"{stage} failed: {error}", 2 if failure.ename in INPUT_ERRORS else 1


def _settle(run: Run, stage: str, before: dict | None, status: str, **fields: Any):
    # a full disk must not hide what happened
    with suppress(OSError):
        if before is not None:
            run.settle(stage, status, **fields)
