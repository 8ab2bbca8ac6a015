"""The `onepass` command, a thin layer over the rooms: each command's words, options and exit status.

Status: 0 done, 1 failed, 2 wrong input, 130 interrupted (Ctrl-C), 143 ended by SIGTERM. What goes wrong is said on the
standard error, in a sentence: what was given, what is allowed, what to do.
"""

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from ..run.disk_space import explain_shortage
from ..run.terminal_text import printable, printable_json
from ..run.termination import TerminatedError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
AsJson = Annotated[bool, typer.Option("--json", help="As JSON, for scripts.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
Recipe = Annotated[
    str,
    typer.Argument(
        help="A recipe of notebooks/recipes (`onepass recipes`), or the path of a YAML file."
    ),
]
RunName = Annotated[
    str,
    typer.Argument(metavar="RUN", help="A run's name (`onepass list`), or its folder in outputs/."),
]


@app.callback()
def onepass():
    """Fine-tuning and guidance distillation of Stable Diffusion, from notebooks.

    Begin with `onepass doctor`, which says what this machine lacks, and `onepass run demo`.
    """


@contextmanager
def report_errors(*faults: type[Exception]) -> Iterator[None]:
    """What goes wrong is said once, in one sentence, and the command's status tells of it. faults: of the command's own."""
    from ..config.validation import ParameterError
    from ..pipeline.notebook import INPUT
    from ..run.run import RunError

    logging.disable()  # a kernel that is stopped is logged with tracebacks, and stock loaders log what is checked here
    try:
        yield
    except ParameterError as wrong:
        exit_with(wrong, 2)
    except (RunError, *faults) as failure:
        exit_with(failure, getattr(failure, "code", 2 if type(failure).__name__ in INPUT else 1))
    except (
        KeyboardInterrupt
    ) as stop:  # here, or typer would say 130 of SIGTERM too, and nothing else
        exit_with(
            "interrupted; give the same command again",
            143 if isinstance(stop, TerminatedError) else 130,
        )
    except BrokenPipeError:  # of `onepass list | head`
        sys.stdout = None
    except OSError as failure:
        where = failure.filename or "the run"  # one without a number is a sentence of our own
        said = f"{where} cannot be read or written: {failure.strerror}{explain_shortage(failure, Path(str(where)))}"
        exit_with(failure if failure.errno is None else said, 1)


def echo(text: object, err: bool = False):
    """Print what may hold names and records of anybody, in which a terminal is to find nothing to obey."""
    typer.echo(printable(text, lines=True), err=err)


def exit_with(said: object, code: int):
    echo(f"onepass: {said}", err=True)
    raise typer.Exit(code) from None


def print_result(value: Any, lines: list[str], as_json: bool):
    """What a command came to: for scripts, or for people."""
    typer.echo(printable_json(value) if as_json else "\n".join(map(printable, lines)))


def status_printer(as_json: bool):
    """Where a command says what it is doing: where its result is JSON, beside it."""
    from ..pipeline.progress import print_progress

    return (lambda line: print(line, file=sys.stderr, flush=True)) if as_json else print_progress


def main():
    """The command, whatever ends it."""
    asked = []

    def terminated(*_):
        signal.signal(
            signal.SIGTERM, signal.SIG_IGN
        )  # once is enough; what is being saved is saved
        asked.append(signal.SIGTERM)
        raise TerminatedError

    signal.signal(signal.SIGTERM, terminated)
    for name in ("stdout", "stderr"):  # a service may have closed them
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    # a log or a pipe shows each line when it is said; where they know few letters, the others are shown as escapes
    sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    try:
        code = app(standalone_mode=False)
        if (
            asked and code == 130
        ):  # before the command had begun, typer takes it for Ctrl-C, and says nothing
            raise TerminatedError
    except KeyboardInterrupt as stop:
        typer.echo("onepass: interrupted; give the same command again", err=True)
        code = 143 if isinstance(stop, TerminatedError) else 130
    except typer.exceptions.TyperException as wrong:  # an option or a command that is not known
        code = _misused(wrong)
    except BrokenPipeError:
        sys.stdout = None
        code = 0
    sys.exit(code or 0)


def _misused(wrong: Exception) -> int:
    said = wrong.format_message().strip()
    if type(wrong).__name__ == "NoArgsIsHelpError":
        echo(said, err=True)
        return 2
    context = getattr(wrong, "ctx", None)
    path = context.command_path if context else "onepass"
    echo(f"onepass: {' '.join(said.split()).rstrip('.')}; see `{path} --help`", err=True)
    return 2
