"""The `onepass` command: a thin layer over `pipeline` and `export`."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def onepass():
    """Guidance distillation of Stable Diffusion into a LoRA, from notebooks."""


@contextmanager
def _one_sentence(*faults: type[Exception]) -> Iterator[None]:
    """What goes wrong is said once, in one sentence, and the command's status tells of it. faults: of the command's own."""
    from .parameters import ParameterError
    from .run import RunError

    logging.disable()  # a kernel that is stopped is logged with tracebacks, and stock loaders log what is checked here
    try:
        yield
    except ParameterError as wrong:
        _end(wrong, 2)
    except (RunError, *faults) as failure:
        _end(failure, getattr(failure, "code", 1))
    except OSError as failure:
        where = failure.filename or "the run"  # one without a number is a sentence of our own
        _end(failure if failure.errno is None else f"{where} cannot be read or written: {failure.strerror}", 1)
    except KeyboardInterrupt:
        _end("interrupted; give the same command again", 130)


def _end(said: object, code: int):
    typer.echo(f"onepass: {said}", err=True)
    raise typer.Exit(code) from None


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="A recipe of notebooks/recipes, or the path of a YAML file.")],
    name: Annotated[str, typer.Option(help="Name of the run, a folder in outputs/; the recipe's name if left out.")] = "",
    p: Annotated[list[str], typer.Option("-p", help="A parameter, STAGE.NAME=VALUE, e.g. -p train.steps=50.")] = [],  # noqa: B006
):
    """Run a recipe: prepare, train, compare. Run again, it goes on where it stopped."""
    from .pipeline import StageError, headline, run_recipe

    with _one_sentence(StageError):
        if done := run_recipe(recipe, name or None, p):
            typer.echo(headline(done))


@app.command()
def export(
    run: Annotated[str, typer.Argument(help="A run in outputs/, or its folder.")],
    to: Annotated[str, typer.Option(help="diffusers, kohya (A1111, ComfyUI) or merged (a whole pipeline).")],
    out: Annotated[str, typer.Option(help="A folder of its own for the export; outputs/RUN/export/TO if left out.")] = "",
):
    """Write a run's adapter for other programs, checked by drawing from it."""
    from .export import ExportError
    from .export import export as export_run
    from .models import BaseError

    with _one_sentence(ExportError, BaseError):
        typer.echo(f"export: {export_run(run, to, Path(out).absolute() if out else None)}")


def main():
    app()


if __name__ == "__main__":
    sys.exit(main())
