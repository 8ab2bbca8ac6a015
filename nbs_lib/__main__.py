"""The `onepass` command: a thin layer over `pipeline`."""

import logging
import sys
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def onepass():
    """Guidance distillation of Stable Diffusion into a LoRA, from notebooks."""


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="A recipe of notebooks/recipes, or the path of a YAML file.")],
    name: Annotated[str, typer.Option(help="Name of the run, a folder in outputs/; the recipe's name if left out.")] = "",
    p: Annotated[list[str], typer.Option("-p", help="A parameter, STAGE.NAME=VALUE, e.g. -p train.steps=50.")] = [],  # noqa: B006
):
    """Run a recipe: prepare, train, compare. Run again, it goes on where it stopped."""
    from .parameters import ParameterError
    from .pipeline import StageError, headline, run_recipe
    from .run import RunError

    logging.disable()  # what went wrong is said once, by `_end`: a kernel that is stopped is logged with tracebacks
    try:
        typer.echo(headline(run_recipe(recipe, name or None, p)))
    except ParameterError as wrong:
        _end(wrong, 2)
    except OSError as failure:
        _end(f"{failure.filename or 'the run'} cannot be read or written: {failure.strerror or failure}", 1)
    except KeyboardInterrupt:
        _end("interrupted; the same command goes on from there", 130)
    except StageError as failure:
        _end(failure, failure.code)
    except RunError as failure:
        _end(failure, 1)


def _end(said: object, code: int):
    typer.echo(f"onepass: {said}", err=True)
    raise typer.Exit(code) from None


def main():
    app()


if __name__ == "__main__":
    sys.exit(main())
