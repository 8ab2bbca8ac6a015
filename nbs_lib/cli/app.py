"""The application behind `onepass`: the options that commands share, errors, output, exit status.

Status: 0 done, 1 failed, 2 wrong input, 130 interrupted by Ctrl-C, 143 ended by SIGTERM. An error
is one sentence on the standard error: what was given, what is allowed, what to do.
"""

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from ..run.disk_space import explain_shortage
from ..run.terminal_text import printable, printable_json
from ..run.termination import TerminatedError

# plain help: boxes of rich would wrap what a script searches; own errors: no locals in tracebacks
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
RECIPE_HELP = "A recipe of notebooks/recipes (`onepass recipes`), or the path of a YAML file."
Recipe = Annotated[str, typer.Argument(help=RECIPE_HELP)]
RUN_HELP = "A run's name (`onepass list`), or its folder in outputs/."
RunName = Annotated[str, typer.Argument(metavar="RUN", help=RUN_HELP)]
INTERRUPTED = "interrupted; give the same command again"


@app.callback()
def onepass():
    """Fine-tuning and guidance distillation of Stable Diffusion, from notebooks.

    Begin with `onepass doctor`, which checks this machine, and `onepass run demo`.
    """


@contextmanager
def report_errors(*errors: type[Exception]) -> Iterator[None]:
    """Print an error in the context as one sentence, and exit with its status.

    errors: those that only this command raises
    """
    from ..config.validation import ParameterError
    from ..pipeline.notebook import INPUT_ERRORS
    from ..run.run import RunError

    # a stopped kernel logs tracebacks, and stock loaders log what is checked here anyway
    logging.disable()
    try:
        yield
    except ParameterError as failure:
        exit_with(failure, 2)
    except (RunError, *errors) as failure:
        code = 2 if type(failure).__name__ in INPUT_ERRORS else 1
        exit_with(failure, getattr(failure, "code", code))
    except KeyboardInterrupt as failure:
        # otherwise typer would exit with 130 for SIGTERM too, without a word
        exit_with(INTERRUPTED, _interrupt_code(failure))
    except BrokenPipeError:
        # `onepass list | head`; without stdout Python does not fail to flush it at exit
        sys.stdout = None
    except OSError as failure:
        exit_with(_describe_os_error(failure), 1)


def _describe_os_error(failure: OSError) -> object:
    if failure.errno is None:
        # it has no error number, so it is a sentence of this library
        return failure
    path = failure.filename or "the run"
    shortage = explain_shortage(failure, Path(str(path)))
    return f"{path} cannot be read or written: {failure.strerror}{shortage}"


def _interrupt_code(failure: KeyboardInterrupt) -> int:
    return 143 if isinstance(failure, TerminatedError) else 130


def echo(text: object, err: bool = False):
    """Print text that may quote names and records of anybody, with control characters escaped."""
    typer.echo(printable(text, lines=True), err=err)


def exit_with(message: object, code: int):
    """Print an error and end the command."""
    echo(f"onepass: {message}", err=True)
    # from None: all that matters of the error is printed
    raise typer.Exit(code) from None


def print_result(value: Any, lines: list[str], as_json: bool):
    """Print a command's result: `value` as JSON for scripts, or `lines` for people."""
    typer.echo(printable_json(value) if as_json else "\n".join(map(printable, lines)))


def command_name() -> str:
    """Return the words that call this command again: `onepass`, or Python with the package."""
    if Path(sys.argv[0]).name == "onepass" or os.environ.get("VIRTUAL_ENV"):
        return "onepass"
    python = Path(sys.executable)
    here = Path.cwd()
    return f"{python.relative_to(here) if python.is_relative_to(here) else python} -m nbs_lib"


def status_printer(as_json: bool) -> Callable[[str], None]:
    """Return the function that prints status lines: to stderr if stdout carries JSON."""
    from ..pipeline.progress import print_progress

    # a script reads stdout as JSON
    return _print_to_stderr if as_json else print_progress


def _print_to_stderr(line: str):
    print(line, file=sys.stderr, flush=True)


def main():
    """Run the command and exit with its status, whatever ends it."""
    # before anything that takes time, so that an early SIGTERM is reported as well
    signals = _handle_sigterm()
    # a service may have closed them
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    # line by line, so that a log or a pipe shows each line at once; escapes for letters that the
    # terminal's encoding lacks
    sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    try:
        code = app(standalone_mode=False)
        if signals and code == 130:
            # before a command begins, typer takes SIGTERM for Ctrl-C and prints nothing
            echo(f"onepass: {INTERRUPTED}", err=True)
            code = 143
    except KeyboardInterrupt as failure:
        echo(f"onepass: {INTERRUPTED}", err=True)
        code = _interrupt_code(failure)
    # an unknown command or option
    except typer.exceptions.TyperException as failure:
        code = _report_misuse(failure)
    except BrokenPipeError:
        sys.stdout = None
        code = 0
    sys.exit(code or 0)


def _handle_sigterm() -> list[int]:
    """Raise TerminatedError on SIGTERM. Returns the list that takes the signal when it comes."""
    signals = []

    def terminate(*_):
        # one signal is enough: a second one must not cut off what is being saved
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signals.append(signal.SIGTERM)
        raise TerminatedError

    signal.signal(signal.SIGTERM, terminate)
    return signals


def _report_misuse(failure: Exception) -> int:
    """Print an unknown command or option as one sentence and return the status."""
    message = failure.format_message().strip()
    if type(failure).__name__ == "NoArgsIsHelpError":
        # its message is the help, which needs no hint to --help
        echo(message, err=True)
        return 2
    context = getattr(failure, "ctx", None)
    path = context.command_path if context else "onepass"
    sentence = " ".join(message.split()).rstrip(".")
    echo(f"onepass: {sentence}; see `{path} --help`", err=True)
    return 2
